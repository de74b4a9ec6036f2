"""The page and the table of a benchmark, from figures that are made up."""

import copy
import re

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from medeid.evaluation.report import write_report
from medeid.evaluation.summary import main_rows, print_table

RATE = {"value": 0.125, "low": 0.05, "high": 0.25, "chance": 0.01, "count": 8}
ATTACK = {name: RATE for name in ("rank1", "rank5", "attacker_rank1", "worst_rank1", "verified", "linked_one_key")} | {
    "linked_two_keys": None,
    "recovery": {"difference": 0.1},
    "diversity": {"diversity": 0.9},
}
SIGNS = {
    "accuracy": 0.99,
    "kappa": 0.8,
    "severity_error": 0.1,
    "dice": 0.7,
    "lost": 0.2,
    "new": 0.3,
    "by_label": {"ptosis:left": {"faces": 3, "accuracy": 0.9, "kappa": None, "severity_error": 0.1}},
    "dice_by_sign": {},
}
COUNTS = {"released": 7, "withheld": 1, "failed": 0}
FIGURES = {
    "photos": COUNTS,
    "failures": {},
    "privacy": {"dlib": {"face_only": ATTACK, "whole_crop": ATTACK}},
    "landmarks": {"rank1": RATE, "linked_two_keys": None},
    "utility": {
        "signs": {"medeid": SIGNS, "judge": SIGNS},
        "geometry": {"lid_aperture": 0.012},
        "colour_change": 1.5,
        "downstream": {
            "photos": 14,
            "auroc": {"value": 0.6, "low": 0.5, "high": 0.7, "chance": 0.5, "count": 16},
            "auroc_originals": {"value": 0.8, "low": 0.7, "high": 0.9, "chance": 0.5, "count": 16},
            "by_region": {"upper_lid": {"photos": 4, "auroc": 0.625, "auroc_originals": 0.875}},
        },
    },
    "quality": {"kernel_distance": 0.02, "pixels_changed_outside": 0, "face_found": 1.0},
    "by_group": {"skin_tone": {"very_light": {"photos": 7, "worst_rank1": 0.5, "kappa": None}}},
    "worst": {
        "similarity": [{"patient": 1, "value": 0.987}, {"patient": 0, "value": 0.5}],
        "changed_labels": [{"patient": 0, "value": 3.0}],
    },
}


@pytest.fixture
def results():
    broken = {"photos": COUNTS | {"released": 0, "failed": 8}, "failures": {"OSError: <none>": 8}}
    return {
        "medeid": "0.1.0",
        "faces": "f" * 16,
        "model": "m" * 16,
        "patients": 8,
        "seed": 0,
        "settings": {"false_accept_rate": 0.001, "recognizers": ["dlib"], "encoders": ["medeid", "judge"]},
        "cohort": {"subjects": 6, "healthy": 1, "gallery": {"photos": 40, "subjects": 30}},
        "methods": {"blur": copy.deepcopy(FIGURES), "a&b": copy.deepcopy(FIGURES), "broken": broken},
    }


TIMING = {"blur": {"seconds_a_photo": 0.002}, "a&b": {"seconds_a_photo": 1.5}, "broken": {"seconds_a_photo": None}}


@pytest.fixture
def report(results, tmp_path):
    for patient, folder in ((p, f) for p in (0, 1) for f in ("patients/validation/images/000", "blur/photos")):
        path = tmp_path / folder / f"{patient:06d}.{'png' if 'blur' in folder else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((64, 64, 3), 100 + patient, np.uint8)).save(path)
    (tmp_path / "a&b").mkdir()
    (tmp_path / "a&b" / "photos").symlink_to(tmp_path / "blur" / "photos")
    write_report(tmp_path, results, TIMING)
    return (tmp_path / "report.html").read_text()


def test_the_page_stands_alone_and_names_every_method(report):
    assert not re.search(r"https?:|//\w|src=\"(?!data:)|<link|<script|url\(", report)
    assert all(name in report for name in ("blur", "a&amp;b", "broken")) and "a&b" not in report
    assert "broken failed on 8 photos: OSError: &lt;none&gt;" in report
    assert "What this does not say" in report


def test_rates_come_with_interval_and_luck(report):
    assert "12.5 % (5.0-25.0)" in report and "luck 1.0" in report and "1.0 %" in report


def test_what_is_learned_from_results_stands_beside_what_is_learned_from_originals(report, results, tmp_path):
    cells = [
        ["mean, in %", "", "80.0 % (70.0-90.0)", *["60.0 % (50.0-70.0)"] * 2],
        ["upper lid", "4", "0.875", *["0.625"] * 2],
    ]
    assert all("".join(f"<td>{cell}</td>" for cell in row) in report for row in cells)
    for figures in results["methods"].values():
        figures.get("utility", {})["downstream"] = None
    write_report(tmp_path, results, TIMING)
    assert "Too few photos show a sign" in (tmp_path / "report.html").read_text()


def test_the_worst_come_first_before_and_after(report):
    assert report.count("data:image/jpeg;base64,") == 2 * 2 * 3  # before and after, of two methods, three each
    assert report.index("similarity 0.987") < report.index("similarity 0.500") < report.index("3 labels changed")


def test_the_plot_has_a_mark_for_each_method_that_was_measured(report):
    (plot,) = re.findall(r"<svg.*?</svg>", report, re.DOTALL)
    assert "kappa of signs by judge" in plot and "a&amp;b" in plot and "broken" not in plot
    ((x, y, width, height),) = re.findall(r'<rect x="(\d+)" y="(\d+)" width="(\d+)" height="(\d+)"', plot)
    at = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', plot)
    inside = [place for place in at if float(place[0]) < float(x) + float(width)]
    assert len(at) == 4 and len(inside) == 2  # the others are the legend's
    assert float(inside[0][0]) == pytest.approx(float(x) + 0.8 * float(width), abs=0.1)
    assert float(inside[0][1]) == pytest.approx(float(y) + 0.875 * float(height), abs=0.1)


def test_a_benchmark_in_which_all_methods_broke_has_a_page_too(results, tmp_path):
    results["methods"] = {"broken": results["methods"]["broken"]}
    write_report(tmp_path, results, TIMING)
    assert "broken failed on 8 photos" in (tmp_path / "report.html").read_text()


def test_the_terminal_shows_a_column_a_method(results):
    console = Console(width=250, record=True, quiet=True)
    with console.capture() as capture:
        console.quiet = False
        print_table(results, TIMING, console)
    lines = capture.get().splitlines()
    (line,) = [line for line in lines if "re-identified at rank 1" in line]
    assert [cell.strip() for cell in line.strip("│┃").split("│")] == [
        "re-identified at rank 1 by dlib, face alone",
        "1.0 %",
        *["12.5 % (5.0-25.0)"] * 2,
        "-",
    ]
    assert any("kappa by judge" in line for line in lines) and any("seconds a photo" in line for line in lines)
    assert not any("two keys" in line for line in lines)  # there is no such figure
    assert "broken failed on 8 photos: OSError: <none>" in lines[-1]
    assert len({row.title for row in main_rows(results) if not row.title.startswith("...")}) > 20
