"""The command line: one bad photo does not stop the others, and none that was not de-identified is written."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

from medeid import __version__
from medeid.cli import app

QUICK = ["--steps", "4", "--seed", "1"]


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def records(folder):
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


@pytest.fixture
def photo(portrait, tmp_path):
    path = tmp_path / "in" / "jane_doe.jpg"
    path.parent.mkdir()
    exif = Image.Exif()
    exif[0x010E] = "Jane Doe"
    portrait.save(path, quality=95, exif=exif)
    return path


def test_version_and_help():
    assert run("--version").stdout == f"medeid {__version__}\n"
    text = run("deid", "--help").stdout
    assert "records.jsonl" in text and "--boxes" in text


def test_a_photo_goes_in_and_a_photo_of_nobody_comes_out(photo, tmp_path):
    before = photo.read_bytes()
    out = tmp_path / "out"
    result = run("deid", photo, "-o", out, *QUICK)
    assert result.exit_code == 0, result.output
    assert "1 of 1 photos released" in result.output
    assert sorted(path.name for path in out.iterdir()) == ["audit.jsonl", "jane_doe.png", "records.jsonl"]
    assert photo.read_bytes() == before
    source, written = np.asarray(Image.open(photo)), np.asarray(Image.open(out / "jane_doe.png"))
    unchanged = (source == written).all(-1)
    assert 0.7 < unchanged.mean() < 0.99
    assert b"Jane" not in (out / "jane_doe.png").read_bytes()


def test_sixteen_bits_of_colour_stay_sixteen(astronaut, tmp_path):
    pixels = (astronaut.astype(np.uint16) << 8) + np.arange(512, dtype=np.uint16)[:, None] % 256
    tifffile.imwrite(tmp_path / "in.tif", pixels, photometric="rgb")
    result = run("deid", tmp_path / "in.tif", "-o", tmp_path / "out", *QUICK)
    assert result.exit_code == 0, result.output
    written = cv2.imread(str(tmp_path / "out" / "in.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    unchanged = (written == pixels).all(-1)
    assert written.dtype == np.uint16 and 0.7 < unchanged.mean() < 0.99
    before, after = pixels[~unchanged].mean(0), written[~unchanged].mean(0)
    assert np.abs(after - before).max() < 8000  # a face in place of a face


def test_records_tell_what_was_done_but_not_to_whom(photo, tmp_path):
    out = tmp_path / "out"
    run("deid", photo, "-o", out, *QUICK)
    (record,) = records(out)
    assert record["status"] == "released" and len(record["output_sha256"]) == 64
    (face,) = record["faces"]
    assert face["similarity"]["dlib"]["after"] < face["similarity"]["dlib"]["before"]
    assert "jane" not in (out / "records.jsonl").read_text()


def test_whatever_is_wrong_with_a_photo_the_others_go_on(portrait, photo, tmp_path):
    folder, out = tmp_path / "bad", tmp_path / "out"
    folder.mkdir()
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("This is no picture.")
    (folder / "truncated.jpg").write_bytes(photo.read_bytes()[:20000])
    portrait.save(folder / "moving.gif", save_all=True, append_images=[portrait.rotate(90)])
    Image.new("RGB", (1, 1)).save(folder / "pixel.png")
    Image.new("L", (10_000, 10_000), 90).save(folder / "huge.png", compress_level=1)
    bad = sorted(folder.iterdir()) + [folder / "missing.png"]
    result = run("deid", *bad, photo, "-o", out, *QUICK)
    assert result.exit_code == 2
    assert "1 of 8 photos released" in result.output
    for path, message in {
        "empty.jpg": "the file is empty",
        "text.jpg": "it is no image",
        "truncated.jpg": "damaged or incomplete",
        "moving.gif": "2 frames",
        "pixel.png": "no face was found",
        "huge.png": "no face was found",
        "missing.png": "no such file",
    }.items():
        (line,) = [line for line in result.output.splitlines() if path in line]
        assert message in line
    assert sorted(path.name for path in out.iterdir()) == ["audit.jsonl", "jane_doe.png", "records.jsonl", "withheld"]
    assert "2 frames" in (out / "withheld" / "moving.txt").read_text()
    statuses = [record["status"] for record in records(out)]
    assert statuses.count("unusable") == 5 and statuses.count("no_face") == 2 and statuses[-1] == "released"


def test_brackets_in_a_name_are_no_markup(tmp_path):
    result = run("deid", tmp_path / "scan[bold].jpg", "-o", tmp_path / "out")
    assert result.exit_code == 2 and "scan[bold].jpg: there is no such file" in result.output


def test_unusual_images_are_done_in_their_own_mode(portrait, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    grey16 = np.asarray(portrait.convert("L")).astype(np.uint16) * 257
    Image.fromarray(grey16).save(folder / "sixteen.png")
    portrait.convert("CMYK").save(folder / "print.tif")
    portrait.quantize(256).save(folder / "palette.png")
    portrait.convert("RGBA").save(folder / "transparent.png")
    result = run("deid", *sorted(folder.iterdir()), "-o", out, *QUICK)
    assert result.exit_code == 0, result.output
    modes = {path.name: Image.open(path).mode for path in out.iterdir() if path.suffix != ".jsonl"}
    assert modes == {
        "sixteen.png": "I;16",
        "print.tif": "CMYK",
        "palette.png": "P",
        "transparent.png": "RGBA",
    }


def test_photos_of_one_name_do_not_overwrite_each_other(photo, portrait, tmp_path):
    twin = tmp_path / "other" / "jane_doe.png"
    twin.parent.mkdir()
    portrait.save(twin)
    out = tmp_path / "out"
    assert run("deid", photo, twin, "-o", out, *QUICK).exit_code == 0
    assert (out / "jane_doe.png").exists() and (out / "jane_doe-2.png").exists()


def test_a_source_is_never_overwritten(portrait, tmp_path):
    source = tmp_path / "photo.png"
    portrait.save(source)
    before = source.read_bytes()
    result = run("deid", source, "-o", tmp_path, *QUICK)
    assert result.exit_code == 2 and "would overwrite" in result.output
    assert source.read_bytes() == before


def test_own_boxes(photo, tmp_path):
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({photo.name: [{"box": [177, 65, 272, 190]}]}))
    assert run("deid", photo, "-o", tmp_path / "out", "--boxes", boxes, *QUICK).exit_code == 0
    assert records(tmp_path / "out")[0]["faces"][0]["detector"] == "user"


@pytest.mark.parametrize(
    "boxes, message",
    [("{", "no readable JSON"), ('"face"', "must hold"), ('{"other.jpg": []}', "not given")],
)
def test_a_wrong_boxes_file_is_a_usage_error(boxes, message, photo, tmp_path):
    (tmp_path / "boxes.json").write_text(boxes)
    result = run("deid", photo, "-o", tmp_path / "out", "--boxes", tmp_path / "boxes.json")
    assert result.exit_code == 1 and message in result.output


def test_an_unwritable_output_is_a_usage_error(photo, tmp_path):
    (tmp_path / "out").write_text("a file, not a folder")
    result = run("deid", photo, "-o", tmp_path / "out")
    assert result.exit_code == 1 and "cannot be written" in result.output


def test_wrong_usage_exits_with_one():
    assert run("deid").exit_code == 1


def test_the_installed_command_runs(photo, tmp_path):
    command = [sys.executable, "-m", "medeid.cli", "deid", str(photo), "-o", str(tmp_path / "out"), *QUICK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "1 of 1 photos released" in done.stdout


def test_a_painted_mask_stays(photo, tmp_path):
    mask = tmp_path / "mask.png"
    painted = np.zeros((512, 512), np.uint8)
    painted[140:150, 240:250] = 255  # on the cheek
    Image.fromarray(painted).save(mask)
    result = run("deid", photo, "-o", tmp_path / "out", "--mask", mask, "--preserve", "none", *QUICK)
    assert result.exit_code == 0, result.output
    source, written = (np.asarray(Image.open(path)).astype(int) for path in (photo, tmp_path / "out" / "jane_doe.png"))
    inside = painted > 0
    details = [picture[inside] - picture[inside].mean(0) for picture in (source, written)]
    assert np.corrcoef(details[0].ravel(), details[1].ravel())[0, 1] > 0.8


@pytest.mark.parametrize(
    "size, message", [((256, 256), "is 256 x 256 px"), (None, "its mask cannot be used: there is no such file")]
)
def test_a_wrong_mask_withholds_its_photo(size, message, photo, tmp_path):
    mask = tmp_path / "mask.png"
    if size:
        Image.new("L", size).save(mask)
    result = run("deid", photo, "-o", tmp_path / "out", "--mask", mask, *QUICK)
    assert result.exit_code == 2 and message in result.output
    assert not list((tmp_path / "out").glob("*.png"))


def test_an_unknown_sign_is_a_usage_error_with_the_nearest_names(photo, tmp_path):
    result = run("deid", photo, "-o", tmp_path / "out", "--preserve", "ptosys")
    assert result.exit_code == 1 and "did you mean ptosis" in result.output


def test_signs_are_printed_and_drawn(photo, tmp_path):
    before = photo.read_bytes()
    missing = tmp_path / "none.jpg"
    result = run("inspect", photo, missing, "-o", tmp_path / "signs")
    assert result.exit_code == 2 and "there is no such file" in result.output
    assert "jane_doe.jpg" in result.output and "probability" in result.output
    (picture,) = (tmp_path / "signs").glob("*.png")
    with Image.open(picture) as drawn:
        assert picture.name == "jane_doe.signs.png" and drawn.width == 512 and drawn.height > 512
    assert photo.read_bytes() == before


def test_a_photo_without_a_face_cannot_be_inspected(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    result = run("inspect", tmp_path / "black.png", "-o", tmp_path / "signs")
    assert result.exit_code == 2 and "no face was found" in result.output


def test_a_patient_stays_the_same_person_under_a_key(photo, tmp_path, monkeypatch):
    monkeypatch.delenv("MEDEID_KEY", raising=False)
    key = tmp_path / "study.key"
    assert run("keygen", key).exit_code == 0
    secret = key.read_text().strip()
    digests = []
    for name in ("one", "two"):
        result = run("deid", photo, "-o", tmp_path / name, "--pseudonym", "P17", "--key-file", key)
        assert result.exit_code == 0, result.output
        told = (tmp_path / name / "records.jsonl").read_text()
        assert secret not in told + result.output and "P17" not in told + result.output
        digests.append(json.loads(told)["faces"][0]["attempts"][-1]["surrogate_digest"])
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pseudonym", "P17"], "needs a key"),
        (["--pseudonym", " ", "--key-file", "key"], "is empty"),
        (["--names", "keyed"], "needs a key"),
        (["--vault", "vault"], "needs a key"),
        (["--recipient", "r.pub"], "is for --vault"),
        (["--pseudonym", "P17", "--key-file", "no.key"], "medeid keygen"),
    ],
)
def test_wrong_keys_are_usage_errors(photo, tmp_path, monkeypatch, options, message):
    monkeypatch.delenv("MEDEID_KEY", raising=False)
    result = run("deid", photo, "-o", tmp_path / "out", *options)
    assert result.exit_code == 1 and message in result.output


def test_a_key_is_not_overwritten(tmp_path):
    assert run("keygen", tmp_path / "key").exit_code == 0
    result = run("keygen", tmp_path / "key")
    assert result.exit_code == 1 and "must not be lost" in result.output
