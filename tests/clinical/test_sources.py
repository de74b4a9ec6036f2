from pathlib import Path

import pytest

from medeid.clinical.sources import SourcesError, list_photos, name_results, read_pseudonyms

KEY = bytes(range(32))


@pytest.fixture
def clinic(tmp_path):
    folder = tmp_path / "clinic"
    for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "visit/c.dcm", ".thumbnails/d.jpg"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def test_pictures_are_taken_by_their_suffix(clinic, tmp_path):
    listing = list_photos([clinic], recursive=False, out=tmp_path / "out")
    assert list(listing.photos) == ["a.PNG", "b.jpg"]
    assert listing.left_out == ["notes.txt: no picture, by its suffix"]
    assert list(list_photos([clinic], True, tmp_path / "out").photos) == ["a.PNG", "b.jpg", "visit/c.dcm"]


def test_what_is_given_itself_is_taken_whatever_its_suffix(clinic, tmp_path):
    assert list(list_photos([clinic / "notes.txt"], False, tmp_path / "out").photos) == ["notes.txt"]


def test_a_link_is_followed_only_inside(clinic, tmp_path):
    (tmp_path / "secret.jpg").touch()
    (clinic / "inside.jpg").symlink_to(clinic / "b.jpg")
    (clinic / "outside.jpg").symlink_to(tmp_path / "secret.jpg")
    (clinic / "tree").symlink_to(tmp_path, target_is_directory=True)
    listing = list_photos([clinic], recursive=True, out=tmp_path / "out")
    assert "inside.jpg" in listing.photos and "outside.jpg" not in listing.photos
    assert not any(name.startswith("tree") for name in listing.photos)
    assert "outside.jpg: a link that leads out of the folder" in listing.left_out


def test_a_url_is_told(tmp_path):
    with pytest.raises(SourcesError, match="is a URL; mount the store"):
        list_photos([Path("s3://bucket/ward")], True, tmp_path / "out")


@pytest.mark.parametrize("out", [".", "visit", "visit/new", ".."])
def test_results_and_photos_must_not_mix(clinic, out):
    with pytest.raises(SourcesError, match="would mix"):
        list_photos([clinic], recursive=True, out=clinic / out)


def test_photos_of_one_name_are_told_apart(clinic, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "b.jpg").touch()
    assert list(list_photos([clinic / "b.jpg", other], False, tmp_path / "out").photos) == ["b.jpg", "b-2.jpg"]


def test_names_are_kept_but_never_twice():
    assert name_results(["v/a.jpg", "v/a.png", "v/A.tif"], "keep") == ["v/a", "v/a-2", "v/A-3"]


def test_keyed_names_tell_nothing_without_the_key():
    photos = ["doe/jane.jpg", "doe/john.jpg"]
    names = name_results(photos, "keyed", KEY)
    assert names == name_results(photos, "keyed", KEY) != name_results(photos, "keyed", bytes(32))
    assert len(set(names)) == 2 and not any(part in name for name in names for part in ("doe", "/", "jane"))
    with pytest.raises(SourcesError, match="needs a key"):
        name_results(photos, "keyed")


def test_names_by_number():
    assert name_results(["doe/jane.jpg", "roe.jpg"], "sequence") == ["000001", "000002"]


def test_pseudonyms_from_a_table(tmp_path):
    table = tmp_path / "patients.csv"
    table.write_text("photo,pseudonym,remark\nvisit1/a.jpg,P17,\nvisit2/a.jpg, P17 ,later\n", encoding="utf-8-sig")
    photos = ["visit1/a.jpg", "visit2/a.jpg", "b.jpg"]
    assert read_pseudonyms(table, photos) == {"visit1/a.jpg": "P17", "visit2/a.jpg": "P17"}


@pytest.mark.parametrize(
    "content, message",
    [
        ("a.jpg,P1\n", "columns photo and pseudonym"),
        ("photo,pseudonym\na.jpg\n", "line 2 lacks a value"),
        ("photo,pseudonym\na.jpg,P1\na.jpg,P2\n", "there twice"),
        ("photo,pseudonym\nother.jpg,P1\n", "not given, such as other.jpg"),
        ("photo,pseudonym\na.jpg,\xe9\n", "no readable table"),
    ],
)
def test_wrong_tables(tmp_path, content, message):
    table = tmp_path / "patients.csv"
    table.write_bytes(content.encode("latin-1"))
    with pytest.raises(SourcesError, match=message):
        read_pseudonyms(table, ["a.jpg"])
