"""The command `medeid benchmark`: what it hands on, what it prints, and how it ends."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from medeid.cli import app
from medeid.data.sources import Skipped
from medeid.manifestations.taxonomy import LABELS

FACES = Path(__file__).parents[1] / "examples" / "faces"
COUNTS = {"released": 2, "withheld": 0, "failed": 0}


def run(*arguments):
    return CliRunner().invoke(app, ["benchmark", *map(str, arguments)])


@pytest.fixture
def calls(monkeypatch, pipeline):
    """Stands in for the benchmark, which has tests of its own."""
    made = []

    def benchmark(faces, out, methods, count, seed, pipeline, judge, clip, jobs, on_progress, on_skip):
        names = [each if isinstance(each, str) else each.name for each in methods]
        made.append((faces, out, names, count, seed, judge and judge.config.labels, clip and clip.name))
        on_progress("Measuring", 1, 1)
        if count == 3:
            on_skip(Skipped("scan[1].jpg", "it is no image"))
        figures = {"photos": COUNTS, "failures": {"OSError: gone": 1} if count == 4 else {}}
        results = {
            "patients": count,
            "seed": seed,
            "cohort": {"subjects": 2},
            "settings": {"false_accept_rate": 0.001, "recognizers": ["dlib"], "encoders": ["medeid"]},
            "methods": {"blur": figures},
        }
        return results, {"blur": {"photos": 2, "seconds_a_photo": 0.1}}

    monkeypatch.setattr("medeid.evaluation.benchmark.run_benchmark", benchmark)
    monkeypatch.setattr("medeid.pipeline.MedicalDeIDPipeline.from_pretrained", lambda model: pipeline)
    return made


def test_all_is_handed_on_and_the_table_is_printed(calls, faces_dir, tmp_path, clip_folder):
    tool = "tool {input} {output}"
    methods = ("--methods", "blur, medeid-0.5", "--method-cmd", tool)
    result = run(faces_dir, "-o", tmp_path, *methods, "-n", 2, "--seed", 7, "--clip", clip_folder, "--judge", "none")
    assert result.exit_code == 0, result.output
    assert calls == [(faces_dir, tmp_path, ["blur", "medeid-0.5", tool], 2, 7, None, clip_folder.name)]
    assert "2 patients of 2 people, seed 7" in result.output and "photos released" in result.output
    assert "report.html" in result.output


@pytest.mark.parametrize(("count", "message"), [(3, "scan[1].jpg: it is no image"), (4, "blur failed on 1 photos")])
def test_what_was_not_used_and_what_failed_is_told_and_ends_with_two(count, message, calls, faces_dir, tmp_path):
    result = run(faces_dir, "-o", tmp_path, "--n", count)
    assert result.exit_code == 2 and message in result.output
    assert calls[0][2] == ["medeid", "blur", "pixelate", "mask", "eye-bar"]
    assert tuple(calls[0][5]) == LABELS  # the packaged judge


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method-cmd", "tool {input}"], "must name {input} and {output}"),
        (["--judge", "nowhere"], "no encoder is in nowhere"),
        (["--clip", FACES], "has no open_clip_config.json"),
        (["-n", "0"], "-n"),
    ],
)
def test_wrong_usage_exits_with_one(arguments, message, calls, faces_dir, tmp_path):
    result = run(faces_dir, "-o", tmp_path, *arguments)
    assert result.exit_code == 1 and message in result.output and not calls


def test_too_few_faces_are_one_clear_error(faces_dir, tmp_path):
    result = run(faces_dir, "-o", tmp_path / "out", "--methods", "blur", "-n", "4")
    assert result.exit_code == 1 and "give 142 faces of different people" in result.output
    assert "Traceback" not in result.output
