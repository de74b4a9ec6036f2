"""A set of simulated patients is a function of its arguments: whatever the processes, and whatever interrupts them."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import yaml
from datasets import load_dataset
from PIL import Image
from typer.testing import CliRunner

from medeid.cli import app
from medeid.data.build import BuildOptions, ImageMaker, Plan, build_set
from medeid.data.faces import FaceFolder
from medeid.data.masks import decode_masks
from medeid.data.simulate import simulate
from medeid.data.sources import SourceFaces
from medeid.manifestations.taxonomy import Finding

SIGNS = ("conjunctival_injection", "rosacea", "naevus", "jaundice", "pallor")
OPTIONS = BuildOptions(count=16, seed=7, signs=SIGNS)
ARGUMENTS = ["-n", "16", "--seed", "7", "--signs", ",".join(SIGNS)]


def run(*arguments):
    return CliRunner().invoke(app, ["simulate", *map(str, arguments)])


def content(folder):
    """All files by name, and their bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_of(folder, split):
    return [json.loads(line) for line in (folder / split / "metadata.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def built(faces_dir, tmp_path_factory):
    """A set of 16 images, made by two processes."""
    out = tmp_path_factory.mktemp("sets") / "whole"
    result = run(faces_dir, "-o", out, *ARGUMENTS, "--jobs", 2)
    assert result.exit_code == 0, result.output
    assert "16 images" in result.output and "(12 train, 4 validation); 16 of them made now" in result.output
    return out


def test_the_set_has_its_files_and_no_others(built):
    names = [f"{index:06d}" for index in range(16)]
    expected = {"README.md", "build.json", "train/metadata.jsonl", "validation/metadata.jsonl"}
    for index, name in enumerate(names):
        split = "train" if index < 12 else "validation"
        expected |= {f"{split}/images/000/{name}.jpg", f"{split}/masks/000/{name}.png"}
    assert set(content(built)) == expected


def test_splits_share_no_face(built, faces_dir):
    for split in ("train", "validation"):
        known = {row["file_name"] for row in FaceFolder(faces_dir, split).rows}
        assert {f"images/{row['source']}.png" for row in rows_of(built, split)} <= known
    assert len({row["source"] for row in rows_of(built, "train")}) == 9  # each is used


def test_a_row_tells_how_its_picture_was_painted(built, faces_dir):
    row = rows_of(built, "train")[0]
    sources = SourceFaces(faces_dir, 256)
    (index,) = [index for index in range(9) if sources.source("train", index).name == row["source"]]
    findings = [Finding(**finding) for finding in row["findings"]]
    again = simulate(*sources.face("train", index), findings, np.random.default_rng(row["seed"]))
    with Image.open(built / "train" / row["file_name"]) as picture:
        assert picture.get_format_mimetype() == "image/jpeg" and picture.size == (256, 256)
        difference = np.abs(np.asarray(picture).astype(float) - again.image)
        assert difference.mean() < 2.0  # JPEG
    with Image.open(built / "train" / row["mask_file_name"]) as picture:
        assert np.array_equal(decode_masks(picture, len(findings)), again.masks)
    np.testing.assert_allclose(row["landmarks"], again.landmarks, atol=0.051)
    assert row["skin_tone"] in ("very_light", "light", "intermediate", "tan", "brown", "dark")


def test_healthy_faces_have_no_findings_and_an_empty_mask(built):
    healthy = [row for row in rows_of(built, "train") if not row["findings"]]
    assert len(healthy) == 1  # of the 12 at 15 %
    with Image.open(built / "train" / healthy[0]["mask_file_name"]) as picture:
        assert not np.asarray(picture).any()


def test_datasets_reads_the_set(built, tmp_path):
    rows = load_dataset("imagefolder", data_dir=str(built), cache_dir=str(tmp_path), split="validation")
    assert len(rows) == 4
    assert rows[0]["image"].size == rows[0]["mask"].size == (256, 256)
    assert rows[0]["findings"][0]["manifestation"] in (*SIGNS, "scleral_icterus")


def test_any_image_can_be_made_alone_and_in_any_order(faces_dir, tmp_path):
    sources, plan = SourceFaces(faces_dir, 256), Plan({"train": 12, "validation": 4})
    forward, backward = (ImageMaker(sources, tmp_path / name, OPTIONS, plan) for name in ("a", "b"))
    rows = [forward.make(index) for index in (3, 12, 14)]
    assert rows == [backward.make(index) for index in (14, 12, 3)][::-1]
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_a_killed_run_is_completed_to_the_same_bytes_by_another_number_of_processes(built, faces_dir, tmp_path):
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "medeid.cli",
        "simulate",
        str(faces_dir),
        "-o",
        str(out),
        *ARGUMENTS,
        "--jobs",
        "1",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    log = out / ".partial" / "rows.jsonl"
    while process.poll() is None and not (log.is_file() and log.read_bytes().count(b"\n") >= 3):
        time.sleep(0.01)
    process.kill()
    # The pipe ends when no process holds it any more: the workers must not outlive the one that was killed.
    process.communicate(timeout=30)
    assert log.is_file() and not (out / "train" / "metadata.jsonl").exists()
    with open(log, "ab") as file:
        file.write(b'{"file_name": "images/000/000015.jpg", "mask_fi')  # cut off
    result = build_set(faces_dir, out, OPTIONS, jobs=1)
    assert 0 < result.made < 16
    assert content(out) == content(built)


def test_what_was_lost_is_made_again_and_nothing_else(built, faces_dir, tmp_path):
    out = shutil.copytree(built, tmp_path / "out")
    (out / "train" / "images" / "000" / "000002.jpg").unlink()
    (out / "validation" / "masks" / "000" / "000013.png").unlink()
    (out / "README.md").unlink()
    metadata = out / "train" / "metadata.jsonl"
    os.truncate(metadata, metadata.stat().st_size - 100)
    kept = out / "train" / "images" / "000" / "000000.jpg"
    before = kept.stat().st_mtime_ns
    assert build_set(faces_dir, out, OPTIONS).made == 3
    assert content(out) == content(built)
    assert kept.stat().st_mtime_ns == before


def test_a_complete_set_stays_as_it_is(built, faces_dir):
    before = content(built)
    result = run(faces_dir, "-o", built, *ARGUMENTS)
    assert result.exit_code == 0 and "0 of them made now" in result.output
    assert content(built) == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 8}, "seed was 7 and is 8"),
        ({"count": 17}, "count was 16 and is 17"),
        ({"signs": ("naevus",)}, "signs was"),
        ({"size": 128}, "size was 256 and is 128"),
    ],
)
def test_other_arguments_do_not_go_into_the_same_folder(changed, message, built, faces_dir):
    with pytest.raises(ValueError, match=message):
        build_set(faces_dir, built, replace(OPTIONS, **changed))


def test_other_faces_do_not_go_into_the_same_folder(built, faces_dir, tmp_path):
    shutil.copytree(faces_dir, tmp_path / "faces")
    (tmp_path / "faces" / "images" / "013.png").unlink()
    with pytest.raises(ValueError, match="faces was"):
        build_set(tmp_path / "faces", built, OPTIONS)


def test_nothing_in_the_set_tells_where_it_was_made(built, faces_dir):
    for name, data in content(built).items():
        assert str(faces_dir).encode() not in data and str(built).encode() not in data, name


def test_a_folder_with_other_files_is_refused(faces_dir, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    result = run(faces_dir, "-o", tmp_path, *ARGUMENTS)
    assert result.exit_code == 1 and "is not empty" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_faces_are_never_written_to(faces_dir):
    before = content(faces_dir)
    for out in (faces_dir, faces_dir / "images" / "out"):
        result = run(faces_dir, "-o", out, *ARGUMENTS)
        assert result.exit_code == 1 and "lies inside of FACES" in result.output
    assert content(faces_dir) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--signs", "ptosys"], "did you mean ptosis"),
        (["--signs", ""], "Unknown manifestation"),
        (["--healthy", "15"], "--healthy"),
        (["--jobs", "0"], "--jobs"),
    ],
)
def test_wrong_usage_exits_with_one(arguments, message, faces_dir, tmp_path):
    result = run(faces_dir, "-o", tmp_path / "out", "-n", "4", *arguments)
    assert result.exit_code == 1 and message in result.output
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder_for_the_set(faces_dir, tmp_path):
    (tmp_path / "out").write_text("mine")
    result = run(faces_dir, "-o", tmp_path / "out", *ARGUMENTS)
    assert result.exit_code == 1 and "out: is a file; choose another name" in result.output


def test_a_folder_without_pictures_is_an_error(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for faces, message in ((tmp_path / "nowhere", "no such folder"), (empty, "holds no pictures")):
        result = run(faces, "-o", tmp_path / "out", "-n", "4")
        assert result.exit_code == 1 and message in result.output


def test_photos_without_a_face_are_an_error_that_leaves_nothing(tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (300, 300), "grey").save(tmp_path / "photos" / "wall.png")
    result = run(tmp_path / "photos", "-o", tmp_path / "out", "-n", "4")
    assert result.exit_code == 1 and "no face was found in any of its 1 pictures" in result.output
    assert content(tmp_path / "out") == {}


def test_photos_become_patients_and_those_that_cannot_are_named(portrait, faces_dir, tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    portrait.save(photos / "anna.png")
    shutil.copy(faces_dir / "images" / "013.png", photos)
    (photos / "scan[1].jpg").write_text("This is no picture.")
    before = content(photos)
    result = run(photos, "-o", out, "-n", "3", "--size", "128")
    assert result.exit_code == 2, result.output
    assert "scan[1].jpg: it is no image" in result.output and "3 images" in result.output
    assert len({rows_of(out, split)[0]["source"] for split in ("train", "validation")}) == 2
    # The name of a photo is often that of a patient.
    assert not [name for name, data in content(out).items() if b"anna" in data or b"scan" in data]
    with Image.open(out / "train" / "images" / "000" / "000000.jpg") as picture:
        assert picture.size == (128, 128)
    assert content(photos) == before
    assert not (out / ".partial").exists()


def test_the_card_counts_what_is_there(built):
    card = (built / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["license"] == "other" and header["size_categories"] == ["n<1K"]
    assert f"-n 16 --seed 7 --signs {','.join(SIGNS)} --healthy 0.15 --size 256" in card
    found = {
        split: [finding for row in rows_of(built, split) for finding in row["findings"]]
        for split in ("train", "validation")
    }
    jaundiced = [sum(each["manifestation"] == "jaundice" for each in found[split]) for split in found]
    assert f"| jaundice | {jaundiced[0]} | {jaundiced[1]} |" in card
    assert f"| jaundice + scleral_icterus | {sum(jaundiced)} |" in card
    findings = found["train"] + found["validation"]
    severe = sum(finding["severity"] > 0.9 for finding in findings)
    assert re.search(rf"\(0\.9, 1\.0\] +{severe}\b", card)
    assert sum(int(share) for share in re.findall(r"\] +(\d+)", card)) == len(findings)
