"""`medeid deid` on DICOM: the face goes, the header names nobody, and all else stays."""

import json

import numpy as np
import pytest
from dicom_samples import NAME, NUMBER, sample, save
from PIL import Image
from pydicom import dcmread
from typer.testing import CliRunner

from medeid.cli import app

QUICK = ["--steps", "2", "--seed", "1", "--preserve", "none"]


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def face(portrait) -> np.ndarray:
    return np.asarray(portrait.crop((100, 0, 356, 256)))


def test_a_dicom_photo_stays_dicom(face, tmp_path):
    save(sample(face), tmp_path / "in.dcm")
    before = (tmp_path / "in.dcm").read_bytes()
    result = run("deid", tmp_path / "in.dcm", "-o", tmp_path / "out", *QUICK)
    assert result.exit_code == 0, result.output
    written = tmp_path / "out" / "in.dcm"
    dataset = dcmread(written)
    unchanged = (dataset.pixel_array == face).all(-1)
    assert 0.3 < unchanged.mean() < 0.95
    assert dataset.RecognizableVisualFeatures == "NO" and dataset.PatientIdentityRemoved == "YES"
    assert not any(planted.encode() in written.read_bytes() for planted in (NAME, NUMBER))
    assert (tmp_path / "in.dcm").read_bytes() == before


def test_the_frames_of_a_file_show_one_person(face, tmp_path):
    turned = np.asarray(Image.fromarray(face).rotate(2, resample=Image.Resampling.BICUBIC))
    save(sample(np.stack([face, turned])), tmp_path / "in.dcm")
    result = run("deid", tmp_path / "in.dcm", "-o", tmp_path / "out", *QUICK)
    assert result.exit_code == 0, result.output
    (record,) = [json.loads(line) for line in (tmp_path / "out" / "records.jsonl").read_text().splitlines()]
    first, second = record["faces"]
    assert first["attempts"][0]["surrogate_digest"] == second["attempts"][0]["surrogate_digest"]
    assert dcmread(tmp_path / "out" / "in.dcm").NumberOfFrames == 2


def test_what_was_released_passes_when_it_is_verified_again(face, tmp_path):
    save(sample(np.stack([face, face[:, ::-1]])), tmp_path / "in.dcm")
    result = run("deid", tmp_path / "in.dcm", "-o", tmp_path / "out", *QUICK)
    assert result.exit_code == 0, result.output
    result = run("verify", tmp_path / "in.dcm", tmp_path / "out" / "in.dcm", "--preserve", "none")
    assert result.exit_code == 0 and "1 of 1 pairs passed" in result.output, result.output
    result = run("verify", tmp_path / "in.dcm", tmp_path / "in.dcm")
    assert result.exit_code == 2 and "frame 2: the recognizer dlib still takes the face" in result.output


def test_one_frame_without_a_face_withholds_the_file(face, tmp_path):
    save(sample(np.stack([face, np.full_like(face, 90)])), tmp_path / "in.dcm")
    result = run("deid", tmp_path / "in.dcm", "-o", tmp_path / "out", *QUICK)
    assert result.exit_code == 2 and "no face was found" in result.output
    assert not list((tmp_path / "out").rglob("*.dcm"))


def test_pixels_that_may_hold_a_name_need_a_look(face, tmp_path):
    dataset = sample(face)
    del dataset.BurnedInAnnotation
    save(dataset, tmp_path / "in.dcm")
    result = run("deid", tmp_path / "in.dcm", "-o", tmp_path / "out", *QUICK)
    assert result.exit_code == 2 and not list((tmp_path / "out").rglob("*.dcm"))
    result = run("deid", tmp_path / "in.dcm", "-o", tmp_path / "out", "--burned-in-checked", *QUICK)
    assert result.exit_code == 0, result.output
    assert dcmread(tmp_path / "out" / "in.dcm").BurnedInAnnotation == "NO"
