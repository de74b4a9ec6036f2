"""Generated faces beside those that were trained on, which here are faces that medeid has drawn."""

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import typer
from typer.testing import CliRunner

from medeid.data.faces import FaceFolder
from medeid.evaluation.pictures import read_picture
from medeid.evaluation.surrogates import check_faces, closest_pairs, compare_nearness, main, nearest_two


@pytest.fixture(scope="module")
def halves(tmp_path_factory, faces_dir):
    """The twelve faces, six of them in each split."""
    folder = tmp_path_factory.mktemp("halves") / "faces"
    shutil.copytree(faces_dir, folder)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    for place, row in enumerate(rows):
        row["split"] = ("train", "validation")[place % 2]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def _directions(count: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(count, 32, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_strangers_are_no_nearer_than_people_and_copies_stand_out():
    known = _directions(400, 0)
    copies = F.normalize(known[:200] + 0.05 * _directions(200, 3), dim=1)
    groups = {"people": _directions(300, 1), "drawn": _directions(1000, 2), "results": copies}
    figures = compare_nearness({name: nearest_two(each, known) for name, each in groups.items()}, threshold=0.9)
    assert figures["people"]["above_threshold"] == figures["drawn"]["above_threshold"] == 0.0
    assert figures["drawn"]["median"] == pytest.approx(figures["people"]["median"], abs=0.02)
    assert figures["drawn"]["beyond_people"] < 0.04
    assert figures["results"]["above_threshold"] == figures["results"]["beyond_people"] == 1.0
    assert figures["results"]["lead_median"] > figures["people"]["lead_percentile_99"]


def test_average_faces_are_near_to_many_and_do_not_look_like_copies():
    known = F.normalize(_directions(400, 0) + 0.5 * torch.ones(32) / 32**0.5, dim=1)
    average = F.normalize(torch.ones(50, 32) + 0.1 * _directions(50, 2), dim=1)
    nearest = {"people": nearest_two(known[:200], known[200:]), "drawn": nearest_two(average, known[200:])}
    figures = compare_nearness(nearest, threshold=0.99)
    assert figures["drawn"]["lead_max"] < figures["people"]["lead_percentile_99"]


def test_the_closest_pairs_show_a_face_beside_the_one_that_it_is_nearest_to(halves):
    known = FaceFolder(halves, "train")
    crops = np.stack([np.full((256, 256, 3), shade, np.uint8) for shade in (10, 20, 30)])
    cosines = torch.full((3, len(known)), 0.1)
    cosines[2, 4] = 0.9
    sheet = closest_pairs({"people": crops}, {"people": cosines}, known, rows=2)
    assert sheet.shape == (2 * (256 + 16), 2 * 256, 3)
    assert (sheet[16:272, :256] == 30).all() and np.array_equal(sheet[16:272, 256:], known.image(4))


@pytest.fixture
def app():
    app = typer.Typer()
    app.command()(main)
    return app


def test_the_command_measures_draws_and_shows(app, halves, tmp_path):
    result = CliRunner().invoke(app, [str(halves), "--count", "4", "--json", "--pictures", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    faces = figures["faces"]
    assert faces["training"] == faces["people"] == 6 and faces["drawn"] == 4
    assert faces.get("results", 0) + figures["withheld"] == 4
    assert 0.5 < figures["nearest_training_face"]["dlib"]["drawn"]["median"] < 1.0
    assert figures["diversity"]["dlib"]["diversity"] > 0.3
    assert set(figures["kernel_distance"]) == set(faces) - {"training"}
    # Six faces are in reach of six rows, the heading above each.
    assert read_picture(tmp_path / "out" / "closest-dlib.png").shape == (6 * 272, (len(faces) - 1) * 512, 3)


def test_too_few_people_are_told_before_anything_is_drawn(app, faces_dir):
    known, unseen = (FaceFolder(faces_dir, split) for split in ("train", "validation"))
    with pytest.raises(ValueError, match="Give more faces"):
        check_faces(known, unseen, 100)
    result = CliRunner().invoke(app, [str(faces_dir)])
    assert result.exit_code == 2 and "Give more faces" in result.output
