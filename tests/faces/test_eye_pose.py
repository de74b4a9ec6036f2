import cv2
import numpy as np
import pytest

from medeid.faces.canvas import Canvas
from medeid.faces.eye_pose import Pose, PosedEye
from medeid.faces.eyeball import EyeLayers
from medeid.faces.mesh import LEFT_BROW, LEFT_EYE, LEFT_IRIS, MIRROR

OTHER_EYE = [int(MIRROR[i]) for i in LEFT_EYE + LEFT_IRIS + LEFT_BROW]


def posed(face, rng=0, above: float = 14.0, size: int = 256, **pose) -> tuple[np.ndarray, np.ndarray]:
    """Picture float32 and landmarks with the left eye in another pose; a lid's way may be a share of the opening."""
    image, landmarks = face
    if size != 256:
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)
    layers = EyeLayers(Canvas(image.astype(np.float32) / 255, landmarks), "left", above=above)
    for lid in ("upper", "lower"):
        if lid in pose:
            pose[lid] = pose[lid] * layers.open / layers.open.max()
    eye = PosedEye(layers, Pose(**pose))
    return eye.image(np.random.default_rng(rng)), eye.landmarks


def centre_of(weight: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[: weight.shape[0], : weight.shape[1]]
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


POSES = [
    {"upper": 4.0, "brow": -1.5},
    {"upper": -3.0, "lower": 1.5},
    {"upper": -1.5, "lower": 1.5, "bulge": 0.08},
]


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("index", [386, 257, 443, 282, 253, 450])  # lid margin, upper lid, brow, lower lid
def test_skin_moves_with_its_landmark(pose, index, light_face):
    image, landmarks = light_face
    x, y = landmarks[index, :2]
    spot = np.exp(-0.5 * ((np.arange(256) - x) ** 2 + (np.arange(256)[:, None] - y - (index == 253)) ** 2) / 0.9**2)
    if index == 386:
        spot *= np.arange(256)[:, None] < y  # the mark is on the lid, not on the eyeball
    marked = np.clip(image + (200 * spot)[..., None] * [0, 1, 0], 0, 255)
    before = centre_of(np.clip(marked - image, 0, None)[..., 1])
    plain, moved = posed(light_face, **pose)
    with_mark, _ = posed((marked, landmarks), **pose)
    after = centre_of(np.clip(with_mark - plain, 0.02, None)[..., 1] - 0.02)
    np.testing.assert_allclose(after - before, (moved - landmarks)[index, :2], atol=0.35)


@pytest.mark.parametrize("turn", [(14.0, 0.0), (-14.0, 0.0), (0.0, -9.0)])
def test_iris_moves_with_its_landmarks(turn, drawn_eyes):
    def blue(image: np.ndarray) -> np.ndarray:
        x, y = np.rint(drawn_eyes[1][473, :2]).astype(int)
        part = np.zeros(image.shape[:2], bool)
        part[y - 10 : y + 10, x - 14 : x + 15] = True
        return ((image[..., 2] > 1.6 * image[..., 0]) & part).astype(np.float32)

    picture, landmarks = posed(drawn_eyes, turn=turn)
    axis = 1 if turn[1] else 0
    seen, expected = [], []
    for image, points in ((drawn_eyes[0] / 255, drawn_eyes[1]), (picture, landmarks)):
        rows, columns = np.nonzero(blue(image))
        # The lids hide the top: of an eye that looks up, the lower edge of the iris shows how far.
        seen.append(rows.max() if axis else centre_of(blue(image))[0])
        expected.append(points[list(LEFT_IRIS), 1].max() if axis else points[473, 0])
    assert np.diff(seen) == pytest.approx(np.diff(expected), abs=1.1 if axis else 0.5)


def test_iris_is_narrower_from_the_side(light_face):
    def width(landmarks: np.ndarray) -> float:
        return np.ptp(landmarks[list(LEFT_IRIS[1:]), 0])

    _, landmarks = posed(light_face, turn=(30.0, 0.0))
    assert width(landmarks) == pytest.approx(width(light_face[1]) * np.cos(np.radians(30)), rel=1e-3)


def test_only_this_eye_changes(light_face):
    picture, landmarks = posed(light_face, upper=4.0, brow=-2.0, turn=(20.0, 5.0), bulge=0.08, fullness=1.0)
    nose = int(light_face[1][168, 0])
    np.testing.assert_array_equal(picture[:, : nose - 4], light_face[0][:, : nose - 4].astype(np.float32) / 255)
    np.testing.assert_array_equal(landmarks[OTHER_EYE], light_face[1][OTHER_EYE])
    np.testing.assert_array_equal(landmarks[:, 2], light_face[1][:, 2])


def test_pose_as_it_is_changes_hardly_anything(light_face):
    picture, landmarks = posed(light_face)
    np.testing.assert_array_equal(landmarks, light_face[1])
    difference = np.abs(picture - light_face[0] / 255).mean(-1)
    contour = np.int32(light_face[1][list(LEFT_EYE), :2])
    eye = cv2.fillPoly(np.zeros((256, 256), np.uint8), [contour], 1)
    assert difference[eye > 0].mean() < 0.03
    assert difference[cv2.dilate(eye, np.ones((7, 7), np.uint8)) == 0].max() < 0.02


def test_larger_pictures_move_alike(light_face):
    for pose in POSES:
        small, large = (posed(light_face, size=size, **pose)[1] for size in (256, 512))
        np.testing.assert_allclose(small, large, atol=0.1)


def test_skin_does_not_fold(light_face):
    image, landmarks = light_face
    layers = EyeLayers(Canvas(image.astype(np.float32) / 255, landmarks), "left", above=14.0)
    eye = PosedEye(layers, Pose(upper=0.9 * layers.open, brow=-2.0))
    heights = eye.landmarks[[386, 257, 443, 282, 334], 1]  # upwards from the margin to the brow
    assert all(np.diff(heights) < 0)
