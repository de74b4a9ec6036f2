import hashlib
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from medeid.data.sources import SourceFaces, cut_faces, find_photos, fingerprint, is_face_folder, read_skipped


@pytest.fixture
def copy(faces_dir, tmp_path):
    """A folder of faces that a test may spoil."""
    return shutil.copytree(faces_dir, tmp_path / "faces")


def rewrite(folder, change):
    path = folder / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(change(index, row)) + "\n" for index, row in enumerate(rows)))


def test_a_folder_of_faces_keeps_its_splits(faces_dir):
    sources = SourceFaces(faces_dir, 256)
    assert sources.splits == ("train", "validation")
    assert (sources.count("train"), sources.count("validation")) == (9, 3)
    assert sources.source("train", 0).name == sources.source("train", 0).subject == "013"
    image, landmarks = sources.face("train", 0)
    assert image.shape == (256, 256, 3) and landmarks.shape == (478, 3)
    assert sources.skipped == []


def test_another_size_changes_the_pixels_but_not_the_landmarks(faces_dir):
    small, large = SourceFaces(faces_dir, 128).face("train", 0), SourceFaces(faces_dir, 256).face("train", 0)
    assert small[0].shape == (128, 128, 3)
    np.testing.assert_array_equal(small[1], large[1])


def test_landmarks_of_larger_crops_are_told_in_pixels_of_256(copy):
    before = SourceFaces(copy, 256).face("train", 0)[1]
    for path in (copy / "images").iterdir():
        with Image.open(path) as image:
            image.resize((512, 512)).save(path)
    np.savez(copy / "landmarks.npz", landmarks=2 * np.load(copy / "landmarks.npz")["landmarks"].astype(np.float32))
    image, after = SourceFaces(copy, 512).face("train", 0)
    assert image.shape == (512, 512, 3)
    np.testing.assert_allclose(after, before, atol=0.01)


def test_faces_are_drawn_by_group(copy):
    rewrite(copy, lambda index, row: {**row, "group": "many" if index else "few"})
    sources = SourceFaces(copy, 256)
    drawn = [sources.draw("train", point) for point in np.linspace(0, 1, 1200, endpoint=False)]
    counts = np.bincount(drawn, minlength=9)
    assert counts[0] > 2 * counts[1:].max() and counts.min() > 0


def test_crops_that_cannot_be_used_are_told_and_never_drawn(copy):
    (copy / "images" / "013.png").write_bytes(b"no picture")
    (copy / "images" / "107.png").unlink()
    Image.new("RGB", (256, 200)).save(copy / "images" / "045.png")
    landmarks = np.load(copy / "landmarks.npz")["landmarks"].astype(np.float32)
    landmarks[4] = np.nan
    np.savez(copy / "landmarks.npz", landmarks=landmarks)
    sources = SourceFaces(copy, 256)
    told = dict((each.file, each.reason) for each in sources.skipped)
    reasons = {"013": "no image", "107": "no such file", "045": "is square", "016": "must be finite"}
    assert list(told) == [f"images/{name}.png" for name in reasons]
    for name, reason in reasons.items():
        assert reason in told[f"images/{name}.png"]
    drawn = {sources.draw("train", point) for point in np.linspace(0, 1, 500, endpoint=False)}
    assert drawn == {4, 5, 6, 7, 8} and sources.count("train") == 5


def test_a_subject_in_two_splits_is_an_error(copy):
    rewrite(copy, lambda index, row: {**row, "subject_id": "twin" if index < 2 else str(index)})
    with pytest.raises(ValueError, match="subject twin is in the splits"):
        SourceFaces(copy, 256)


def test_a_damaged_folder_is_told_with_file_and_line(copy):
    rewrite(copy, lambda index, row: row if index != 2 else {"file_name": row["file_name"]})
    with pytest.raises(ValueError, match=r"metadata.jsonl, line 3: .*`split`"):
        SourceFaces(copy, 256)
    rewrite(copy, lambda index, row: {**row, "split": "train"})
    (copy / "landmarks.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ValueError, match=r"landmarks.npz: holds no readable array"):
        SourceFaces(copy, 256)
    (copy / "metadata.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"metadata.jsonl: has no rows"):
        SourceFaces(copy, 256)


@pytest.mark.parametrize("split", ["", ".hidden", "../elsewhere", "/tmp/elsewhere"])
def test_a_split_that_is_no_name_of_a_folder_is_an_error(split, copy):
    rewrite(copy, lambda index, row: {**row, "split": split})
    with pytest.raises(ValueError, match=r"metadata.jsonl, line 1: `split` must be a plain name"):
        SourceFaces(copy, 256)


def test_what_the_metadata_says_may_be_a_number_or_null(copy):
    rewrite(copy, lambda index, row: {**row, "subject_id": None, "sex": 2, "group": 30 + index % 2})
    source = SourceFaces(copy, 256).source("train", 0)
    assert (source.subject, source.sex, source.group) == ("013", "2", "30")


def test_crops_of_16_bits_are_told(copy):
    path = copy / "images" / "013.png"
    grey = np.asarray(Image.open(path).convert("L")).astype(np.uint16)
    Image.fromarray(grey * 257).save(path)
    (skipped,) = SourceFaces(copy, 256).skipped
    assert skipped.file == "images/013.png" and "more than 8 bits" in skipped.reason


def test_fingerprint_follows_the_files_and_not_the_place(copy, faces_dir):
    assert fingerprint(copy) == fingerprint(faces_dir)
    (copy / "images" / "013.png").write_bytes(b"another")
    assert fingerprint(copy) != fingerprint(faces_dir)


def test_fingerprint_follows_landmarks_and_splits_of_the_same_size(copy):
    whole = fingerprint(copy)
    landmarks = np.load(copy / "landmarks.npz")["landmarks"]
    np.savez(copy / "landmarks.npz", landmarks=landmarks)
    before, size = fingerprint(copy), (copy / "landmarks.npz").stat().st_size
    np.savez(copy / "landmarks.npz", landmarks=landmarks[::-1])
    assert (copy / "landmarks.npz").stat().st_size == size
    assert len({whole, before, fingerprint(copy)}) == 3


@pytest.mark.skipif(os.name == "nt", reason="names are bytes only on POSIX")
def test_names_of_photos_need_not_be_utf8(tmp_path):
    with open(os.fsencode(tmp_path) + b"/M\xfcller.png", "wb") as file:
        file.write(b"a photo")
    assert len(find_photos(tmp_path)) == 1 and fingerprint(tmp_path)


def test_photos_behind_links_and_without_a_suffix_are_found_once(tmp_path):
    ward, elsewhere = tmp_path / "ward", tmp_path / "elsewhere"
    ward.mkdir()
    elsewhere.mkdir()
    Image.new("RGB", (8, 8)).save(elsewhere / "IMG0001", "PNG")
    (elsewhere / "LICENSE").write_text("no picture")
    (ward / "linked").symlink_to(elsewhere, target_is_directory=True)
    (elsewhere / "back").symlink_to(ward, target_is_directory=True)
    assert [path.relative_to(ward).as_posix() for path in find_photos(ward)] == ["linked/IMG0001"]


@pytest.fixture(scope="module")
def photos(astronaut, faces_dir, tmp_path_factory):
    """Photos of five faces, one of them given twice, and two pictures that cannot be used."""
    root = tmp_path_factory.mktemp("photos")
    portrait = Image.fromarray(astronaut)
    portrait.save(root / "anna.jpg", quality=95)
    (root / "ward").mkdir()
    shutil.copy(root / "anna.jpg", root / "ward" / "anna.jpg")
    for name in ("013", "022", "107"):
        shutil.copy(faces_dir / "images" / f"{name}.png", root / "ward")
    pair = Image.new("RGB", (1024, 512))
    pair.paste(portrait, (0, 0))
    pair.paste(portrait.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (512, 0))
    pair.save(root / "pair.png")
    Image.new("RGB", (300, 300), "grey").save(root / "wall.png")
    (root / "broken.jpg").write_bytes((root / "anna.jpg").read_bytes()[:5000])
    (root / "notes.txt").write_text("no picture")
    (root / ".hidden.jpg").write_text("no picture")
    return root


@pytest.fixture(scope="module")
def cut(photos, tmp_path_factory):
    target = tmp_path_factory.mktemp("cut")
    cut_faces(find_photos(photos), photos, target, 256)
    return target


def test_photos_are_all_files_that_may_be_pictures(photos):
    assert not is_face_folder(photos)
    names = [path.relative_to(photos).as_posix() for path in find_photos(photos)]
    assert names == ["anna.jpg", "broken.jpg", "pair.png", "wall.png"] + [
        f"ward/{name}" for name in ("013.png", "022.png", "107.png", "anna.jpg")
    ]


def digest(photo):
    return hashlib.sha256(photo.read_bytes()).hexdigest()[:12]


def test_every_face_in_a_photo_becomes_a_source(cut, photos):
    rows = [json.loads(line) for line in (cut / "metadata.jsonl").read_text().splitlines()]
    anna, pair = digest(photos / "anna.jpg"), digest(photos / "pair.png")
    others = [f"{digest(photos / 'ward' / name)}-1" for name in ("013.png", "022.png", "107.png")]
    assert [row["source"] for row in rows] == [f"{anna}-1", f"{pair}-1", f"{pair}-2", *others, f"{anna}-1-copy2"]
    subjects = {row["source"]: row["subject_id"] for row in rows}
    assert subjects[f"{anna}-1"] == subjects[f"{anna}-1-copy2"] and len(set(subjects.values())) == 6
    assert {row["split"] for row in rows} == {"train", "validation"}
    assert [(each.file, each.reason.split(";")[0]) for each in read_skipped(cut)] == [
        ("broken.jpg", "it is damaged or incomplete"),
        ("wall.png", "no face was found"),
    ]


def face_of(sources, name):
    (found,) = [
        (split, index)
        for split in sources.splits
        for index in range(sources.count(split))
        if sources.source(split, index).name == name
    ]
    return sources.face(*found)


def test_faces_are_cut_out_with_their_landmarks(cut, faces_dir):
    image, landmarks = face_of(SourceFaces(cut, 256), f"{digest(faces_dir / 'images' / '013.png')}-1")
    known_image, known_landmarks = face_of(SourceFaces(faces_dir, 256), "013")
    # An aligned crop is found as it is, but for what two alignments differ by.
    assert np.abs(landmarks[:, :2] - known_landmarks[:, :2]).mean() < 6.0
    assert np.abs(image.astype(float) - known_image).mean() < 20.0


def test_crops_of_another_size_show_the_same_square(cut, photos, tmp_path):
    cut_faces([photos / "anna.jpg"], photos, tmp_path / "large", 384)
    large, landmarks = face_of(SourceFaces(tmp_path / "large", 384), f"{digest(photos / 'anna.jpg')}-1")
    small, same_landmarks = face_of(SourceFaces(cut, 256), f"{digest(photos / 'anna.jpg')}-1")
    np.testing.assert_allclose(landmarks, same_landmarks, atol=0.01)
    reduced = np.asarray(Image.fromarray(large).resize((256, 256), Image.Resampling.BOX))
    assert np.abs(reduced.astype(float) - small).mean() < 5.0


def test_no_face_at_all_is_one_error(photos, tmp_path):
    with pytest.raises(ValueError, match="no face was found in any of its 1 pictures .*wall.png"):
        cut_faces([photos / "wall.png"], photos, tmp_path / "none", 256)
