import numpy as np
import pytest
import torch

from medeid.faces import mesh

CLOSED_CONTOURS = {
    "left_eye": mesh.LEFT_EYE,
    "right_eye": mesh.RIGHT_EYE,
    "left_brow": mesh.LEFT_BROW,
    "right_brow": mesh.RIGHT_BROW,
    "lips": mesh.OUTER_LIPS,
    "oval": mesh.OVAL,
}


def _ellipse(count: int, centre: tuple[float, float], radii: tuple[float, float], start: float) -> np.ndarray:
    angles = start + np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.array(centre) + np.array(radii) * np.stack([np.cos(angles), np.sin(angles)], axis=1)


@pytest.fixture
def landmarks() -> np.ndarray:
    """A face of ellipses, symmetric about the middle of the 256 px crop."""
    points = np.zeros((mesh.NUM_LANDMARKS, 3), np.float32)
    points[:, :2] = (127.5, 140.0)
    points[list(mesh.OVAL), :2] = _ellipse(36, (127.5, 140.0), (70.0, 95.0), -np.pi / 2)
    points[list(mesh.OUTER_LIPS), :2] = _ellipse(20, (127.5, 190.0), (28.0, 12.0), np.pi)
    points[list(mesh.INNER_LIPS), :2] = _ellipse(20, (127.5, 190.0), (22.0, 5.0), np.pi)
    points[list(mesh.NOSE), :2] = _ellipse(22, (127.5, 145.0), (17.0, 25.0), -np.pi / 2)
    points[list(mesh.NOSE_BRIDGE), 1] = np.linspace(120, 160, 6)
    points[list(mesh.RIGHT_EYE), :2] = _ellipse(16, (95.5, 120.0), (14.0, 6.0), np.pi)
    points[list(mesh.RIGHT_BROW), :2] = _ellipse(10, (95.5, 102.0), (18.0, 4.0), np.pi)
    points[mesh.RIGHT_IRIS[0], :2] = (95.5, 120.0)
    points[list(mesh.RIGHT_IRIS[1:]), :2] = _ellipse(4, (95.5, 120.0), (5.0, 5.0), 0.0)
    mirrored = mesh.flip_landmarks(points)
    for part in (mesh.LEFT_EYE, mesh.LEFT_BROW, mesh.LEFT_IRIS):
        points[list(part)] = mirrored[list(part)]
    return points


def test_mirror_pairs_all_points():
    assert sorted(mesh.MIRROR) == list(range(mesh.NUM_LANDMARKS))
    np.testing.assert_array_equal(mesh.MIRROR[mesh.MIRROR], np.arange(mesh.NUM_LANDMARKS))
    assert mesh.MIRROR[33] == 263 and mesh.MIRROR[61] == 291 and mesh.MIRROR[468] == 473
    for middle in (mesh.NOSE_TIP, mesh.FOREHEAD, mesh.CHIN):
        assert mesh.MIRROR[middle] == middle


@pytest.mark.parametrize(
    ("right", "left"),
    [(mesh.RIGHT_EYE, mesh.LEFT_EYE), (mesh.RIGHT_BROW, mesh.LEFT_BROW), (mesh.RIGHT_IRIS, mesh.LEFT_IRIS)],
)
def test_paired_contours_mirror_each_other(right, left):
    assert set(mesh.MIRROR[list(right)]) == set(left)


@pytest.mark.parametrize("contour", [mesh.OVAL, mesh.OUTER_LIPS, mesh.INNER_LIPS, mesh.NOSE, mesh.NOSE_ALA])
def test_central_contours_mirror_themselves(contour):
    assert len(set(contour)) == len(contour)
    assert set(mesh.MIRROR[list(contour)]) == set(contour)


def test_flip_twice_changes_nothing(landmarks):
    turned = landmarks + np.float32([11.0, -3.0, 2.0])
    flipped = mesh.flip_landmarks(turned)
    assert not np.allclose(flipped, turned)
    np.testing.assert_allclose(mesh.flip_landmarks(flipped), turned, atol=1e-4)
    tensor = mesh.flip_landmarks(torch.from_numpy(turned)[None])
    np.testing.assert_array_equal(tensor[0].numpy(), flipped)


def test_flip_mirrors_the_mask(landmarks):
    turned = landmarks + np.float32([11.0, -3.0, 2.0])
    mask = mesh.region_mask(turned, "left_eye", 256)
    mirrored = mesh.region_mask(mesh.flip_landmarks(turned), "right_eye", 256)
    assert np.abs(mask[:, ::-1] - mirrored).mean() < 2e-4  # subpixel rounding at the border


def test_points5_order_and_batches(landmarks):
    points = mesh.points5_from_mesh(landmarks)
    np.testing.assert_allclose(points[0], (95.5, 120.0), atol=1e-3)
    np.testing.assert_allclose(points[1], (159.5, 120.0), atol=1e-3)
    np.testing.assert_allclose(points[3], (99.5, 190.0), atol=1e-3)
    np.testing.assert_allclose(points[4], (155.5, 190.0), atol=1e-3)
    batch = mesh.points5_from_mesh(torch.from_numpy(np.stack([landmarks, landmarks])))
    assert batch.shape == (2, 5, 2)
    np.testing.assert_allclose(batch[1].numpy(), points, atol=1e-4)


def test_points5_rejects_other_shapes():
    with pytest.raises(ValueError, match=r"\[68, 2\]"):
        mesh.points5_from_mesh(np.zeros((68, 2)))


def test_inter_ocular_distance(landmarks):
    assert mesh.inter_ocular_distance(landmarks) == pytest.approx(92.0, abs=1e-3)
    batch = torch.from_numpy(landmarks)[None] * 2
    assert mesh.inter_ocular_distance(batch).shape == (1,)
    assert mesh.inter_ocular_distance(batch).item() == pytest.approx(184.0, abs=1e-3)


@pytest.mark.parametrize("region", [*CLOSED_CONTOURS, "nose", "skin", "face"])
@pytest.mark.parametrize("size", [64, 256])
def test_region_mask_is_binary(landmarks, region, size):
    mask = mesh.region_mask(landmarks, region, size)
    assert mask.shape == (size, size) and mask.dtype == np.float32
    assert set(np.unique(mask)) == {0.0, 1.0}


@pytest.mark.parametrize("region", CLOSED_CONTOURS)
def test_region_mask_has_the_area_of_its_contour(landmarks, region):
    x, y = landmarks[list(CLOSED_CONTOURS[region]), :2].T
    area = 0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))
    large, small = (mesh.region_mask(landmarks, region, size).sum() for size in (512, 128))
    assert large / 4 == pytest.approx(area, rel=0.12)
    assert small * 4 == pytest.approx(area, rel=0.5)  # a thin region grows by the pixels on its border


def test_patients_right_eye_is_image_left(landmarks):
    columns = np.nonzero(mesh.region_mask(landmarks, "right_eye", 256))[1]
    assert columns.max() < 128


def test_face_contains_all_points_and_reaches_higher_than_the_oval(landmarks):
    face = mesh.region_mask(landmarks, "face", 256)
    oval = mesh.region_mask(landmarks, "oval", 256)
    assert np.all(face >= oval)
    rise = np.nonzero(oval)[0].min() - np.nonzero(face)[0].min()
    assert 0.08 * 190 < rise < 0.16 * 190
    profile = landmarks.copy()
    profile[mesh.NOSE_TIP, 0] = 215.0  # a turned head: the nose stands out beyond the oval
    assert mesh.region_mask(profile, "face", 256)[int(profile[mesh.NOSE_TIP, 1]), 215] == 1


def test_skin_leaves_out_eyes_brows_and_lips(landmarks):
    skin = mesh.region_mask(landmarks, "skin", 256)
    assert np.all(skin <= mesh.region_mask(landmarks, "oval", 256))
    for region in ("left_eye", "right_eye", "left_brow", "right_brow", "lips"):
        assert not np.any(skin * mesh.region_mask(landmarks, region, 256))
    assert skin[145, 127] == 1  # the nose is skin


def test_region_mask_says_what_is_wrong(landmarks):
    with pytest.raises(ValueError, match="'ear'"):
        mesh.region_mask(landmarks, "ear", 256)
    with pytest.raises(ValueError, match="`landmarks`"):
        mesh.region_mask(landmarks[None], "oval", 256)
    with pytest.raises(ValueError, match="`size`"):
        mesh.region_mask(landmarks, "oval", 0)
    with pytest.raises(ValueError, match="degenerate"):
        mesh.region_mask(np.zeros_like(landmarks), "face", 256)


def _colour_centre(sketch: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Centre of the pixels that are nearer to this corner of the RGB cube than to any other."""
    rows, columns = np.nonzero(np.all((sketch > 127) == (np.uint8(colour) > 127), axis=-1))
    return np.array([columns.mean(), rows.mean()])


def test_sketch_shows_gaze(landmarks):
    yellow = (255, 255, 0)
    straight = mesh.draw_sketch(landmarks, 256)
    looking = landmarks.copy()
    looking[list(mesh.RIGHT_IRIS + mesh.LEFT_IRIS), 0] += 5.0
    shift = _colour_centre(mesh.draw_sketch(looking, 256), yellow) - _colour_centre(straight, yellow)
    np.testing.assert_allclose(shift, (5.0, 0.0), atol=0.3)


def test_sketch_shows_lid_aperture(landmarks):
    green = (0, 255, 0)
    drooping = landmarks.copy()
    upper_lid = list(mesh.RIGHT_EYE[1:8])
    drooping[upper_lid, 1] += 6.0
    before, after = (mesh.draw_sketch(points, 256) for points in (landmarks, drooping))
    half = slice(0, 128)
    assert _colour_centre(after[:, half], green)[1] > _colour_centre(before[:, half], green)[1] + 1.0
    np.testing.assert_array_equal(after[:, 128:], before[:, 128:])


@pytest.mark.parametrize("size", [64, 256, 512])
def test_sketch_size_and_colours(landmarks, size):
    sketch = mesh.draw_sketch(landmarks, size)
    assert sketch.shape == (size, size, 3) and sketch.dtype == np.uint8
    corners = {tuple(corner) for corner in np.unique(sketch.reshape(-1, 3) > 127, axis=0).tolist()}
    assert {(0, 0, 1), (0, 1, 1), (1, 0, 0), (1, 1, 0), (1, 1, 1)} <= corners
