"""Photos of several faces are drawn as they are said to be, and a face that was left in one is seen."""

import numpy as np
import pytest

from medeid.data.faces import FaceFolder
from medeid.evaluation.several_faces import (
    HEIGHT,
    KINDS,
    LARGE,
    SMALL,
    WIDTH,
    draw_photo,
    is_left,
    is_recognised,
    measure,
)
from medeid.faces.mesh import MOUTH_CORNERS, OUTER_EYE_CORNERS, OVAL
from medeid.records import UnsureFaceError


@pytest.fixture(scope="module")
def folder(faces_dir):
    return FaceFolder(faces_dir, "train")


def draw(folder, kind, *seed):
    return draw_photo(folder, kind, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_a_photo_shows_what_it_is_said_to(folder, kind):
    photo, (face, beside, *_) = draw(folder, kind, 0)
    assert photo.shape == (HEIGHT, WIDTH, 3) and (face.kind, beside.kind) == (kind, "plain")
    left, right = (face.landmarks[point] for point in OUTER_EYE_CORNERS)
    slope = abs(np.degrees(np.arctan2(*(right - left)[::-1])))
    width = np.ptp(face.landmarks[list(OVAL), 0])
    assert (slope > 20) == (kind == "turned")
    assert (width < 60) == (kind == "small") and SMALL[0] * 0.8 < width < LARGE[1] * 1.5
    outside = ((face.landmarks < 0) | (face.landmarks >= (WIDTH, HEIGHT))).any()
    assert outside == (kind == "cut") and face.shown.any()
    hidden = [not face.shown[tuple(np.rint(face.landmarks[point][::-1]).astype(int))] for point in points_of(kind)]
    assert all(hidden)
    assert (out_of_shape(face.landmarks, folder) > 0.02 * width) == (kind == "turned away")


def points_of(kind):
    """The landmarks that lie under what covers a face."""
    return {"bar": OUTER_EYE_CORNERS, "mask": MOUTH_CORNERS}.get(kind, ())


def out_of_shape(landmarks, folder):
    """How far landmarks are from those of any face in the folder, moved, turned and scaled to them."""
    there = landmarks @ (1, 1j)
    faces = [folder.landmarks(index)[:, :2] @ (1, 1j) for index in range(len(folder))]
    moves = [np.stack([face, np.ones_like(face)], axis=1) for face in faces]
    return min(np.abs(move @ np.linalg.lstsq(move, there, rcond=None)[0] - there).mean() for move in moves)


def test_a_face_that_is_left_or_recognised_is_seen(pipeline, folder):
    photo, (first, second, *_) = draw(folder, "turned", 0)
    painted, retouched = photo.copy(), photo.copy()
    painted[first.shown] = 90
    retouched[second.shown] ^= 1
    assert not is_left(photo, painted, first) and not is_recognised(pipeline, photo, painted, first)
    assert is_left(photo, painted, second)
    assert not is_left(photo, retouched, second) and is_recognised(pipeline, photo, retouched, second)


def test_no_face_is_left_in_what_is_released(pipeline, folder):
    """`python -m medeid.evaluation.several_faces examples/faces` is the figure that is reported."""
    figures = measure(pipeline, folder, ["turned", "bar"], seed=0)
    assert figures["photos"] == 2 and figures["released_with_a_face_left"] == 0
    assert figures["by_kind"]["turned"]["drawn"] >= 1 and figures["by_kind"]["plain"]["drawn"] >= 2
    assert figures["released"] + sum(figures["withheld_because"].values()) == 2


def test_who_was_not_surely_found_is_not_left(pipeline, folder):
    """Two are found, and of a third, at the edge, nobody can say."""
    photo, _ = draw(folder, "cut", 1, 6)
    with pytest.raises(UnsureFaceError, match="there may be one more face at .* give the boxes") as caught:
        pipeline(photo)
    assert caught.value.records[0].status == "withheld" and caught.value.records[0].faces
