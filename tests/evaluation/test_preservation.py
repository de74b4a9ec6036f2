"""Signs before and after, on patients made of faces that medeid has drawn."""

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from medeid.data.build import BuildOptions, build_set
from medeid.data.mema import load_mema
from medeid.evaluation.preservation import main, measure


@pytest.fixture(scope="module")
def stained(tmp_path_factory, faces_dir):
    out = tmp_path_factory.mktemp("stained") / "set"
    build_set(faces_dir, out, BuildOptions(count=8, seed=0, signs=("port_wine_stain",), healthy=0.25))
    return out


def test_a_stain_is_read_again_and_its_masks_agree(pipeline, stained):
    figures = measure(pipeline, load_mema(stained, "train").select(range(4)), seed=0)
    assert figures["faces"] + figures["withheld"] == 4 and figures["attempts"] >= 1
    assert {label.partition(":")[0] for label in figures["kappa_by_label"]} >= {"port_wine_stain"}
    assert figures["dice"] > 0.3 and figures["severity_change"] < 0.4


def test_the_command_prints_json(stained):
    app = typer.Typer()
    app.command()(main)
    result = CliRunner().invoke(app, [str(stained), "--split", "train", "--count", "1", "--json"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["faces"] + figures["withheld"] == 1 and np.isfinite(figures["attempts"])
