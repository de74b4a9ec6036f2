"""The benchmark of speed: that its clock counts each moment once, and that its figures are of what they say."""

import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image

from medeid.faces.detection import detect_faces

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = ("benchmark_speed", "speed_report", "stage_clock")


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import benchmark_speed

    yield benchmark_speed
    for name in SCRIPTS:
        sys.modules.pop(name)


@pytest.fixture
def photo(script) -> np.ndarray:
    return script.open_photo(script.PORTRAIT, 256)


def test_each_moment_counts_once_and_the_result_is_the_same(script, pipeline, photo):
    def call():
        return pipeline(photo, generator=torch.Generator().manual_seed(0)).images[0]

    expected = call()
    with script.watch(pipeline) as clock:
        began = time.perf_counter()
        clock.restart()
        watched = call()
        stages = clock.read()
        elapsed = time.perf_counter() - began
    assert sum(sum(parts.values()) for parts in stages.values()) == pytest.approx(elapsed, rel=0.01)
    assert (watched == expected).all()
    for stage in ("detect", "read signs", "encode", "denoise", "decode", "verify"):
        assert stages[stage]["networks"] > stages[stage]["own"] > 0, stage
    assert stages["paste, match colour"]["networks"] == 0 < stages["paste, match colour"]["own"]


def test_a_network_inside_of_another_counts_once(script, pipeline):
    with script.watch(pipeline) as clock:
        clock.restart()
        clock.enter_network()
        clock.enter_network()
        time.sleep(0.1)
        clock.leave_network()
        time.sleep(0.1)
        clock.leave_network()
        time.sleep(0.1)
        *_, other = clock.read().values()
    assert other["networks"] == pytest.approx(0.2, abs=0.08) and other["own"] == pytest.approx(0.1, abs=0.08)


def test_nothing_is_left_of_the_clock(script, pipeline):
    assert pipeline.recognizers and pipeline.detectors  # which are loaded when they are first asked for
    before = dict(vars(pipeline)), pipeline.detectors[0]._idle[0].net
    with script.watch(pipeline):
        assert pipeline.unet._forward_hooks and "find_faces" in vars(pipeline)
    assert (dict(vars(pipeline)), pipeline.detectors[0]._idle[0].net) == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in pipeline.unet.modules())


def test_pixels_and_faces_are_measured(script, pipeline, photo):
    (row,) = script.measure_pixels(pipeline, script.PORTRAIT, [256], runs=1)
    assert row["side"] == 256 and row["tries"] >= 1 and 0 < row["own"] < row["seconds"]
    (row,) = script.measure_faces(pipeline, photo, counts=[1], runs=1)
    assert row.pop("faces") == 1 and list(row) == ["calls", "one_call", "one_photo"] and min(row.values()) > 0


def test_other_tools_get_the_same_photos(script, pipeline, photo):
    tools = script.measure_tools(pipeline, [photo], runs=1)
    assert list(tools)[:2] == ["medeid", "deface"]
    assert tools["medeid"]["seconds"] > tools["deface"]["seconds"] > 0
    assert tools["phi-anonymize-face"].keys() in ({"seconds"}, {"left_out"})


def test_all_faces_of_one_photo_are_found(script, pipeline):
    many = script.mosaic(script.open_photo(script.PORTRAIT, script.TILE), 16)
    found = detect_faces(many, pipeline.detectors)
    assert len(found.faces) == 16 and not any(candidate.unsure for candidate in found.rejected)


def test_results_are_compared_to_the_byte(script, tmp_path):
    for name, value in (("one", 100), ("two", 103)):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4), 7).save(tmp_path / name / "a.png")
        Image.new("L", (4, 4), value).save(tmp_path / name / "b.png")
    assert script.compare(tmp_path / "two", tmp_path / "one") == {"same_files": 1, "largest_difference": 3}


def test_the_command_is_timed_on_a_folder(script, photo):
    folder = script.measure_folder([photo], 1, {"--jobs 1": ["--jobs", "1"], "wrong": ["--jobs", "0"]})
    assert folder["--jobs 1"].pop("seconds") > 0
    assert folder["--jobs 1"] == {"files": 1, "same_files": 1, "largest_difference": 0}
    assert folder["wrong"].keys() == {"left_out"}


def test_the_package_loads_no_network_and_not_even_torch(script):
    statements = {"it": "import medeid", "torch": "import medeid, sys; assert 'torch' not in sys.modules"}
    imports = script.measure_imports(statements, runs=1)
    assert all(row["networks"] == 0 for row in imports.values())
    network = {"one": "import torch; network = torch.nn.Linear(1, 1)"}
    assert script.measure_imports(network, runs=1)["one"]["networks"] == 1


FIGURES = {
    "medeid": "0.1.0",
    "torch": "2",
    "cores": 2,
    "threads": 2,
    "stages": {
        "stages": {"denoise": {"networks": 0.9, "own": 0.05}, "verify": {"networks": 0.0, "own": 0.05}},
        "own_share": 0.1,
    },
    "tools": {"medeid": {"seconds": 1.0}, "deface": {"seconds": 0.1}, "other": {"left_out": "not installed"}},
    "faces": [{"faces": n, "calls": n, "one_call": 0.8 * n, "one_photo": 0.6 * n} for n in (1, 16)],
    "pixels": [{"side": 512, "seconds": 1.0, "own": 0.1, "tries": 1.0}],
    "folder": {
        "--jobs 1": {"files": 8, "seconds": 20.0, "same_files": 8, "largest_difference": 0},
        "--jobs 2": {"files": 8, "seconds": 12.0, "same_files": 7, "largest_difference": 1},
        "--engine ray --workers 2": {"files": 8, "seconds": 18.0, "same_files": 8, "largest_difference": 0},
    },
    "import": {
        "import medeid": {"seconds": 0.01, "networks": 0},
        "import torch": {"seconds": 1.0, "networks": 0},
        "the pipeline's libraries": {"seconds": 3.0, "networks": 0},
        "from medeid import MedicalDeIDPipeline": {"seconds": 3.5, "networks": 1},
    },
}


def test_bars_are_told_whether_they_are_met(script):
    told = {bar["what"]: (bar["value"], bar["met"]) for bar in script.bars(FIGURES)}
    assert told == {
        "share of a photo's time outside of networks": (0.1, True),
        "16 photos in one call / as many calls": (pytest.approx(0.8), False),
        "16 faces in one photo / as many calls": (pytest.approx(0.6), True),
        "--jobs 2 / --jobs 1": (0.6, True),
        "files that --jobs 2 makes otherwise": (1, False),
        "--engine ray --workers 2 / --jobs 2": (1.5, False),
        "seconds of `import medeid`": (0.01, True),
        "seconds that the pipeline's import adds to its libraries'": (0.5, True),
        "networks that the pipeline's import loads": (1, False),
    }


def test_tables_are_markdown_and_the_picture_is_small(script, capsys, tmp_path):
    figures = FIGURES | {"bars": script.bars(FIGURES)}
    script.print_tables(figures)
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("|")]
    assert ["denoise", "900", "50", "95.0%"] in rows and ["share", "90.0%", "10.0%", ""] in rows
    assert ["other", "not measured: not installed"] in rows and ["--jobs 2", "12.0", "1.50", "7 of 8", "1"] in rows
    pytest.importorskip("matplotlib")
    script.draw(figures, tmp_path / "figures.png")
    assert (tmp_path / "figures.png").stat().st_size < 150_000
    with Image.open(tmp_path / "figures.png") as picture:
        assert picture.format == "PNG"


def test_sections_are_chosen_by_name(script):
    assert script.parse_sections("faces, stages") == ["stages", "faces"]
    with pytest.raises(typer.BadParameter, match="unknown: speed; choose from stages,"):
        script.parse_sections("speed")
