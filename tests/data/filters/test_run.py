"""The whole way: a data set on disk, through `run_filters` and the command, to the report."""

import csv
import hashlib
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image
from typer.testing import CliRunner

from medeid.cli import app
from medeid.data.filters import LIMITS, run_filters
from medeid.data.filters.rows import read_faces
from medeid.data.mema import load_mema
from medeid.faces.mesh import region_mask
from medeid.manifestations.taxonomy import LABELS, Finding


def digests(folder) -> dict:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def command(*arguments):
    return CliRunner().invoke(app, ["filter", *(str(argument) for argument in arguments)])


@pytest.fixture
def faces(healthy, left_eye_mask, dark_face) -> list:
    """Good, blurred, a repeat of the first, a mask on the wrong side, another good one."""
    dark = replace(healthy, image=dark_face[0], landmarks=dark_face[1], subject_id="two", skin_tone="brown")
    softened = replace(dark, image=cv2.GaussianBlur(dark.image, (0, 0), 3.0))
    wrong_side = replace(
        healthy,
        image=np.clip(healthy.image + 8.0, 0, 255).astype(np.uint8),
        findings=(Finding("chalazion", "right"),),
        masks=left_eye_mask[None],
    )
    return [healthy, softened, healthy, wrong_side, dark]


def redness_rule(images: np.ndarray) -> np.ndarray:
    """A predictor by pixels alone: flushing is a red middle of the picture."""
    probabilities = np.zeros((len(images), len(LABELS)), np.float32)
    middle = images[:, 96:192, 96:160].astype(np.float32).mean((1, 2))
    excess = middle[:, 0] - middle[:, 1:].mean(1)
    probabilities[:, LABELS.index("flushing")] = 1 / (1 + np.exp((90.0 - excess) / 4.0))
    return probabilities


def test_each_fault_is_flagged_and_the_rest_is_kept(write_set, faces):
    dataset = write_set(faces)
    before = digests(dataset)
    report = run_filters(dataset)
    assert digests(dataset) == before
    assert report.kept == ["train/images/0.png", "train/images/4.png"]
    blurred, repeat, wrong_side = (" ".join(row.reasons) for row in report.flagged)
    assert "blurred: detail_1px is -" in blurred and "must be at least -2.25" in blurred
    assert "duplicate: same pixels as train/images/0.png" in repeat
    assert "mask on the wrong side: mask_on_side of chalazion:right is 0.0" in wrong_side
    assert report.unreadable == [] and any("Privacy" in reason for reason in report.not_run)


def test_the_report_tells_all(write_set, faces, tmp_path):
    report = run_filters(write_set(faces))
    report.save(tmp_path / "report")
    assert (tmp_path / "report" / "kept.txt").read_text() == "train/images/0.png\ntrain/images/4.png\n"
    measures = list(csv.DictReader(open(tmp_path / "report" / "measures.csv")))
    flagged = list(csv.DictReader(open(tmp_path / "report" / "flagged.csv")))
    assert len(measures) == 5 and [row["file_name"] for row in flagged] == [row.file_name for row in report.flagged]
    assert set(measures[0]) == {"file_name", "reasons", *(limit.measure for limit in LIMITS)}
    assert float(measures[1]["detail_1px"]) == pytest.approx(report.rows[1].measures["detail_1px"], abs=1e-4)
    assert measures[0]["mask_pixels"] == ""
    page = (tmp_path / "report" / "report.md").read_text()
    assert "5 pictures read, 3 flagged (60.0 %), 2 kept" in page
    assert "| brown | 2 | 1 | 50.0 % |" in page and "| chalazion | 1 | 1 | 100.0 % |" in page
    assert "Privacy: there are no originals" in page
    with Image.open(tmp_path / "report" / "histograms.png") as histograms:
        assert histograms.size[0] > 600
    table = report.table
    assert table.num_rows == 5 and table["reasons"].to_pylist()[0] == []


def test_labels_are_checked_against_a_predictor(write_set, healthy):
    skin = region_mask(healthy.landmarks, "skin", 256) > 0
    red = replace(healthy, image=(healthy.image * np.array([1.0, 0.6, 0.6])).astype(np.uint8), subject_id="red")
    label = {"findings": (Finding("flushing"),), "masks": skin[None]}
    faces = [healthy, red, replace(red, **label), replace(healthy, subject_id="pale", **label)]
    dataset = write_set(faces)
    report = run_filters(dataset, predictor=redness_rule)
    said = [[text for text in row.reasons if "predictor" in text] for row in report.rows]
    assert said[0] == said[2] == []
    assert "disagreement of flushing is" in said[1][0] and "disagreement of flushing is" in said[3][0]
    with pytest.raises(ValueError, match="`predictor` must return"):
        run_filters(dataset, predictor=lambda images: images)


def test_leaks_are_flagged_where_originals_are_given(write_set, healthy, varied, tmp_path):
    clinic = tmp_path / "clinic"
    clinic.mkdir()
    Image.fromarray(healthy.image).save(clinic / "patient.png")
    others = [face for face in varied[:12] if face.subject_id.split("-")[0] != "8"][:2]
    report = run_filters(write_set([healthy, *others]), clinic)
    near = [row.measures["nearest_original"] for row in report.rows]
    assert near[0] > 0.99 > max(near[1:])
    assert any("near an original" in text for text in report.rows[0].reasons)
    assert not any("Privacy" in reason for reason in report.not_run)


def test_the_report_names_no_original(write_set, healthy, tmp_path):
    clinic, out = tmp_path / "clinic", tmp_path / "report"
    clinic.mkdir()
    Image.fromarray(healthy.image).save(clinic / "anna.png")
    (clinic / "berta.jpg").write_text("no picture")
    result = command(write_set([healthy]), "--originals", clinic, "-o", out)
    assert result.exit_code == 2 and "berta.jpg: it is no image" in result.output
    texts = [(out / name).read_text() for name in ("report.md", "measures.csv", "flagged.csv", "kept.txt")]
    assert "1 files; `medeid filter` names them" in texts[0]
    assert not any(name in text for text in texts for name in ("anna", "berta", "clinic"))


def test_names_are_kept_as_the_rows_have_them(write_set, faces, tmp_path):
    dataset = write_set([faces[0], faces[4]])
    metadata = dataset / "train" / "metadata.jsonl"
    rows = [json.loads(line) for line in metadata.read_text().splitlines()]
    rows[0]["file_name"] = "./images/0.png"
    rows[1]["file_name"] = str(dataset / "train" / "images" / "1.png")
    metadata.write_text("\n".join(map(json.dumps, rows)))
    report = run_filters(dataset)
    report.save(tmp_path / "report")
    assert len(load_mema(dataset, kept=tmp_path / "report" / "kept.txt")) == len(report.kept) == 2


def test_pictures_are_judged_upright(write_set, healthy):
    dataset = write_set([healthy])
    path = dataset / "train" / "images" / "0.png"
    turned = Image.open(path).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned.save(path, exif=exif)
    (face,) = read_faces(dataset)
    assert np.array_equal(face.image, healthy.image)


def test_a_row_that_cannot_be_read_does_not_stop_the_others(write_set, faces, tmp_path):
    dataset = write_set(faces)
    metadata = dataset / "train" / "metadata.jsonl"
    rows = [json.loads(line) for line in metadata.read_text().splitlines()]
    rows[1]["findings"] = [{"manifestation": "ptosi", "side": "left", "severity": 0.5}]
    rows[2]["file_name"] = "images/none.png"
    rows[3]["landmarks"] = rows[3]["landmarks"][:5]
    Image.new("P", (64, 64)).save(dataset / "train" / "masks" / "4.png")
    point = rows[0] | {"landmarks": [[x % 100, 50.0, 0.0] for x in range(478)]}
    point["landmarks"][10] = point["landmarks"][152]
    metadata.write_text("\n".join([*map(json.dumps, rows), "{", "[]", json.dumps(point)]))
    out = tmp_path / "report"
    result = command(dataset, "-o", out)
    assert result.exit_code == 2, result.output
    assert (out / "kept.txt").read_text() == "train/images/0.png\n"
    page = (out / "report.md").read_text()
    problems = {2: "ptosis", 3: "none.png", 4: "landmarks", 5: "64 x 64", 6: "JSON", 7: "object", 8: "coincide"}
    for number, problem in problems.items():
        for text in (page, result.output):
            (line,) = [line for line in text.splitlines() if f"train/metadata.jsonl, line {number}" in line]
            assert problem in line


def test_flagged_pictures_are_a_finding_and_no_error(write_set, faces, tmp_path):
    dataset, out = write_set(faces), tmp_path / "report"
    for _ in range(2):  # a second run replaces the report
        result = command(dataset, "-o", out)
        assert result.exit_code == 0, result.output
    assert "2 of 5 pictures kept" in result.output and "1  blurred" in result.output
    assert "not run: Privacy" in result.output
    names = {"report.md", "histograms.png", "measures.csv", "flagged.csv", "kept.txt"}
    assert {path.name for path in out.iterdir()} == names


def test_wrong_usage_ends_with_one(write_set, faces, tmp_path):
    dataset = write_set(faces[:1])
    for arguments, message in (
        ((tmp_path / "nothing",), "holds no metadata.jsonl"),
        ((dataset, "-o", dataset / "report"), "which is only read"),
        ((dataset, "--originals", dataset.parent / "clinic", "-o", dataset.parent / "clinic" / "r"), "only read"),
        ((dataset, "--originals", tmp_path / "nothing"), "holds no picture"),
        ((dataset, "--originals", dataset, "--far", "2"), "false_accept_rate"),
        ((), "Missing argument"),
    ):
        given = arguments if "-o" in arguments or not arguments else (*arguments, "-o", tmp_path / "report")
        result = command(*given)
        assert result.exit_code == 1 and message in result.output, result.output
