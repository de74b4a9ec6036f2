"""The hard photos of docs/gallery.md, made of the faces in examples/faces."""

import sys
from pathlib import Path

import numpy as np
import pytest

from medeid.data.faces import FaceFolder

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def gallery():
    sys.path.insert(0, str(ROOT / "examples"))
    import make_gallery

    yield make_gallery
    sys.path.remove(str(ROOT / "examples"))


@pytest.fixture(scope="module")
def people(faces_dir):
    folder = FaceFolder(faces_dir, "train")
    return [(folder.image(index), folder.landmarks(index)) for index in (8, 5)]


def test_every_photo_can_be_made_again_and_is_harder_than_the_portrait(gallery, people):
    for number, case in enumerate(gallery.CASES):
        first, again = (case.make(people[: len(case.seeds)], np.random.default_rng(number)) for _ in range(2))
        assert first.dtype == np.uint8 and np.array_equal(first, again), case.title
        if case.title not in ("an older face", "a full beard"):  # which are in the portrait
            assert not np.array_equal(first, people[0][0]), case.title


def test_the_page_tells_of_every_photo_and_keeps_what_was_written_by_hand(gallery):
    shown = [gallery.Shown(np.zeros((8, 8, 3), np.uint8), None, "withheld: no face was found") for _ in gallery.CASES]
    page = gallery.page(shown, {"glasses": "one lens is gone"})
    assert gallery.written(page)["glasses"] == "one lens is gone"
    assert [row for row in gallery.written(page)] == [case.title for case in gallery.CASES]
    assert list(gallery.written(gallery.PAGE.read_text("utf-8"))) == [case.title for case in gallery.CASES]


def test_the_sheet_shows_before_and_after_side_by_side(gallery):
    before, after = (np.full((100, 100, 3), shade, np.uint8) for shade in (50, 90))
    sheet = np.asarray(
        gallery.sheet([gallery.Shown(before, after, "released"), gallery.Shown(before, None, "withheld")])
    )
    middle, tile = gallery.CAPTION + gallery.TILE // 2, gallery.TILE
    assert sheet[middle, tile // 2, 0] == 50 and sheet[middle, tile + tile // 2, 0] == 90
    assert sheet[middle, 2 * tile + gallery.GAP + tile + tile // 2, 0] == 225
