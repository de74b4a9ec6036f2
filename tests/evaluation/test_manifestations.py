import io
import json

import numpy as np
import pytest
import torch
import typer
from rich.console import Console
from typer.testing import CliRunner

from medeid.evaluation.calibration import calibrate, calibration_half
from medeid.evaluation.manifestations import load_encoder, main, measure, scores
from medeid.evaluation.outputs import EncoderOutputs, distinct_faces, read_faces
from medeid.evaluation.tables import print_tables
from medeid.manifestations.taxonomy import LABELS, TAXONOMY

SIGNS = list(TAXONOMY)


def run(*arguments) -> typer.testing.Result:
    app = typer.Typer()
    app.command()(main)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_scores_of_three_faces():
    labels = np.zeros((3, len(LABELS)), bool)
    labels[0, LABELS.index("ptosis:left")] = labels[1, LABELS.index("scar:left")] = True
    dice = np.full((3, len(SIGNS)), np.nan)
    dice[0, SIGNS.index("ptosis")], dice[:2, SIGNS.index("scar")] = 0.9, (0.2, 0.4)
    severities = np.where(labels, 0.5, 0.9)
    nothing = np.zeros((3, 0))
    outputs = EncoderOutputs(nothing, severities, nothing, nothing, nothing, dice, labels, np.where(labels, 0.7, 0.0))
    claimed = labels.copy()
    claimed[1:, LABELS.index("ptosis:left")] = True
    result = scores(outputs, labels.astype(float), claimed)
    assert result["f1"]["ptosis:left"] == {"faces": 1, "f1": 0.5}
    assert result["macro_f1"] == pytest.approx(0.75)
    assert result["dice_appearance"] == pytest.approx(0.3)  # ptosis is seen by its shape
    assert result["severity_error"] == pytest.approx(0.2)
    assert (result["healthy"], result["healthy_claimed"], result["calibration_error"]) == (1, 1.0, 0.0)


def test_one_half_of_the_subjects_is_measured(encoder, rows, few_attackers):
    figures = measure(encoder, rows, [])
    once = distinct_faces(rows)
    calibrates = calibration_half(once["subject_id"])
    assert 0 < figures["faces"] == (~calibrates).sum() < len(once)
    assert figures["calibrated"] == f"now, on {calibrates.sum()} faces of other subjects"
    assert sum(group["faces"] for group in figures["by_group"]["skin_tone"].values()) == figures["faces"]
    assert set(figures["identity"]) == {
        "drawn tokens",
        "mean tokens",
        "features before the bottleneck",
        "drawn tokens, subjects shuffled",
    }


def test_tables_show_what_is_told(encoder, rows, few_attackers):
    console = Console(file=io.StringIO(), width=100)
    print_tables(measure(encoder, rows, []), console)
    shown = console.file.getvalue()
    for words in ("macro f1", "jaundice", "skin tone", "drawn tokens"):
        assert words in shown
    assert "ptosis" not in shown and "nan" not in shown


def test_a_calibrated_encoder_is_measured_as_it_is(encoder, rows, few_attackers):
    calibrate(encoder, read_faces(encoder, rows))
    before = encoder.threshold.clone()
    assert measure(encoder, rows, [])["calibrated"] == "before"
    assert torch.equal(encoder.threshold, before)


def test_command(encoder, patients, tmp_path, few_attackers):
    encoder.save_pretrained(tmp_path / "manifestation_encoder")
    result = run(patients, "--encoder", tmp_path, "--split", "train", "--subjects", 8, "--json")
    figures = json.loads(result.stdout)
    assert figures["subjects"] < 8
    assert figures["scores"]["f1"]["ptosis:left"] == {"faces": 0, "f1": None}
    assert figures["identity"]["dlib"]["linear"] > figures["identity"]["dlib"]["chance"]


def test_what_is_no_encoder_is_named(patients, tmp_path):
    with pytest.raises(ValueError, match="no encoder is in"):
        load_encoder(tmp_path)
    result = run(patients, "--encoder", tmp_path)
    assert result.exit_code == 2
    assert "no encoder" in result.output
