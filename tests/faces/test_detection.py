"""Detection: real faces with CenterFace, and the union, turns and rejections with small fake detectors."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from facexlib.detection.retinaface import RetinaFace

from medeid.faces.alignment import ffhq_matrix
from medeid.faces.detection import CenterFaceDetector, RetinaFaceDetector, detect_faces, parse_boxes, shows_face
from medeid.types import FaceBox

# The astronaut's eyes (image-left, image-right) and corners of the mouth, read off the enlarged picture.
EYES_AND_MOUTH = np.array([[202.5, 100.8], [246.7, 103.7], [204.2, 141.2], [243.8, 141.7]])

POINTS = np.array([[30, 40], [50, 40], [40, 50], [32, 60], [48, 60]], dtype=np.float32)
BLANK = np.zeros((120, 200, 3), np.uint8)


class FakeDetector:
    """Reports fixed boxes in the upright photo, which comes first, and none in turned ones."""

    def __init__(self, name, *faces):
        self.name, self.faces = name, faces
        self.calls = 0

    def __call__(self, photo):
        self.calls += 1
        if self.calls > 1:
            return []
        return [FaceBox(box, score, points, self.name) for box, score, points in self.faces]


@pytest.fixture(scope="module")
def centerface():
    return CenterFaceDetector()


@pytest.fixture(scope="module")
def astronaut():
    return skimage.data.astronaut()


def turned(points, turn, size):
    """Where `np.rot90(photo, turn)` takes points of a square photo."""
    for _ in range(turn):
        points = np.stack([points[:, 1], size - 1 - points[:, 0]], axis=1)
    return points


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_face_is_found_in_any_orientation(centerface, astronaut, turn):
    faces = detect_faces(np.rot90(astronaut, turn), [centerface]).faces
    assert len(faces) == 1
    assert faces[0].detector == "centerface" and faces[0].score > 0.6
    expected = turned(EYES_AND_MOUTH, turn, 512)
    np.testing.assert_allclose(faces[0].points5[[0, 1, 3, 4]], expected, atol=5)
    x0, y0, x1, y1 = faces[0].box
    assert ((expected > (x0, y0)) & (expected < (x1, y1))).all()


def test_lying_face_beside_an_upright_one(centerface, astronaut):
    head = astronaut[0:256, 96:352]
    pair = np.concatenate([head, np.rot90(head)], axis=1)
    faces = detect_faces(pair, [centerface]).faces
    assert len(faces) == 2
    angles = sorted(
        np.degrees(np.arctan2(-m[1, 0], m[0, 0])) for m in (ffhq_matrix(face.points5, 256) for face in faces)
    )
    assert abs(angles[0] + 90) < 15 and abs(angles[1]) < 15


@pytest.mark.parametrize("size", [100, 2048])
def test_small_and_large_photos(centerface, astronaut, size):
    photo = cv2.resize(astronaut, (size, size), interpolation=cv2.INTER_AREA)
    (face,) = centerface(photo)
    scale = size / 512
    np.testing.assert_allclose(face.points5[[0, 1, 3, 4]], EYES_AND_MOUTH * scale, atol=10 * scale)


def test_threads_may_search_at_once(astronaut):
    detector = CenterFaceDetector()
    photos = [astronaut, astronaut[:, ::-1].copy(), astronaut[100:]]
    alone = [detector(photo) for photo in photos]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(detector, photos * 3))
    assert [[face.box for face in faces] for faces in together] == [[face.box for face in faces] for faces in alone] * 3


def test_no_face(centerface):
    assert detect_faces(np.full((300, 200, 3), 127, np.uint8), [centerface]).faces == []


def test_union_of_detectors():
    """Duplicates merge: the best score, and points from whichever detector has them."""
    with_points = FakeDetector("a", ((20, 20, 60, 70), 0.7, POINTS))
    surer = FakeDetector("b", ((22, 21, 61, 69), 0.9, None), ((100, 10, 140, 60), 0.8, None))
    result = detect_faces(BLANK, [with_points, surer])
    assert [(face.detector, face.score) for face in result.faces] == [("b", 0.9), ("b", 0.8)]
    np.testing.assert_array_equal(result.faces[0].points5, POINTS)
    assert result.faces[1].points5 is None
    assert result.rejected == []


def test_points_of_the_turn_that_shows_the_face_upright_count():
    """A detector that is surer of a face that lies in its view does not decide where the points are."""
    lying = np.array([[40, 30], [40, 50], [50, 40], [60, 32], [60, 48]], dtype=np.float32)  # mouth right of the eyes
    upright = FakeDetector("a", ((20, 20, 60, 70), 0.7, POINTS))
    surer = FakeDetector("b", ((20, 20, 60, 70), 0.9, lying))
    (face,) = detect_faces(BLANK, [upright, surer]).faces
    np.testing.assert_array_equal(face.points5, POINTS)
    assert face.score == 0.9


def test_rejected_boxes_are_reported_with_a_reason():
    fake = FakeDetector("a", ((20, 20, 60, 70), 0.4, None), ((100, 10, 112, 60), 0.9, None))
    result = detect_faces(BLANK, [fake], min_size=20, min_score=0.5)
    assert result.faces == []
    reasons = {item.box.score: item.reason for item in result.rejected}
    assert reasons == {0.4: "score below 0.5: 0.40", 0.9: "smaller than 20 px: 12.0 px"}


def test_what_may_be_a_face_is_unsure_unless_it_is_tiny_or_lies_in_one():
    face, inside, beside, tiny = (100, 10, 180, 110), (110, 20, 150, 60), (20, 20, 60, 70), (0, 0, 10, 10)
    fake = FakeDetector("a", (face, 0.9, None), *((box, 0.4, None) for box in (inside, beside, tiny)))
    result = detect_faces(BLANK, [fake])
    assert [found.box for found in result.faces] == [face]
    assert {each.box.box: each.unsure for each in result.rejected} == {inside: False, beside: True, tiny: False}


def test_smallest_first_and_clipped_to_the_photo():
    fake = FakeDetector("a", ((100, 10, 250, 100), 0.9, None), ((-10, 20, 60, 70), 0.8, None))
    faces = detect_faces(BLANK, [fake]).faces
    assert [face.box for face in faces] == [(0, 20, 60, 70), (100, 10, 200, 100)]


def test_photo_is_turned_at_full_size_only_if_nothing_was_found():
    large = np.zeros((900, 1200, 3), np.uint8)
    finds = FakeDetector("a", ((20, 20, 60, 70), 0.7, None))
    detect_faces(large, [finds])
    assert finds.calls == 4
    blind = FakeDetector("b")
    detect_faces(large, [blind])
    assert blind.calls == 7


def test_detectors_are_required():
    with pytest.raises(ValueError, match="detectors"):
        detect_faces(BLANK, [])


def test_user_boxes():
    entries = [{"box": [10, 10, 110, 110]}, {"box": [20.5, 20, 60, 70], "points5": POINTS.tolist()}]
    small, large = parse_boxes(entries, BLANK.shape)
    assert small.detector == "user" and small.score == 1.0
    assert small.points5.dtype == np.float32
    np.testing.assert_array_equal(small.points5, POINTS)
    assert large.box == (10, 10, 110, 110) and large.points5 is None


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ({"box": [0, 0, 1, 1]}, "must be a list"),
        ([[0, 0, 1, 1]], "must be a dict"),
        ([{"box": [0, 0, 10, 10], "bx": 1}], "must be a dict"),
        ([{"box": [0, 0, 10]}], r"\[x0, y0, x1, y1\]"),
        ([{"box": [0, 0, "10", 10]}], "all numbers"),
        ([{"box": [0, 0, float("nan"), 10]}], "finite"),
        ([{"box": [20, 0, 10, 10]}], "x0 < x1"),
        ([{"box": [0, 5, 10, 5]}], "y0 < y1"),
        ([{"box": [0, 0, 201, 10]}], "200 x 120 px"),
        ([{"box": [-1, 0, 10, 10]}], "200 x 120 px"),
        ([{"box": [0, 0, 10, 10], "points5": [[1, 2]]}], "five"),
        ([{"box": [0, 0, 10, 10], "points5": [[1, 2]] * 4 + [[1, 500]]}], "200 x 120 px"),
    ],
)
def test_wrong_user_boxes_are_refused(boxes, message):
    with pytest.raises(ValueError, match=message):
        parse_boxes(boxes, BLANK.shape)


def test_retinaface_without_weights(tmp_path):
    assert not RetinaFaceDetector.available(weights_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="fetch"):
        RetinaFaceDetector(weights_dir=tmp_path)
    with pytest.raises(ValueError, match="variant"):
        RetinaFaceDetector.available("resnet18")


def test_retinaface_download_failure_is_clear(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(ConnectionError, match="CenterFace"):
        RetinaFaceDetector.fetch(weights_dir=tmp_path)


def test_retinaface_reads_facexlib_weights(tmp_path, monkeypatch):
    """Untrained weights in the published file's form: loaded from disk, run, and boxes in photo pixels."""
    torch.manual_seed(0)
    weights = RetinaFace(network_name="mobile0.25", device=torch.device("cpu")).state_dict()
    path = tmp_path / "detection_mobilenet0.25_Final.pth"
    torch.save({f"module.{key}": value for key, value in weights.items()}, path)
    monkeypatch.setenv("MEDEID_FACEXLIB_WEIGHTS", str(tmp_path))

    assert RetinaFaceDetector.available("mobile0.25")
    assert RetinaFaceDetector.fetch("mobile0.25") == path
    faces = RetinaFaceDetector("mobile0.25")(np.zeros((64, 96, 3), np.uint8))
    assert faces and all(face.points5.shape == (5, 2) and face.detector == "retinaface" for face in faces)

    path.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="does not hold"):
        RetinaFaceDetector("mobile0.25")


def test_a_crop_shows_a_face_where_one_is_that_fills_it_or_a_small_one(centerface, light_face):
    face = light_face[0]
    small = np.full_like(face, 127)
    small[100:148, 100:148] = cv2.resize(face, (48, 48), interpolation=cv2.INTER_AREA)
    assert shows_face(face, [centerface]) and shows_face(small, [centerface])
    assert not shows_face(np.full_like(face, 127), [centerface])


def test_any_detector_may_find_the_face(light_face):
    blind, sure = FakeDetector("a"), FakeDetector("b", ((20, 20, 60, 80), 0.9, POINTS))
    unsure = FakeDetector("c", ((20, 20, 60, 80), 0.4, POINTS))
    assert shows_face(light_face[0], [blind, sure]) and not shows_face(light_face[0], [blind, unsure])
