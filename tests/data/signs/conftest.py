"""An eye whose parts are told apart by their colours."""

import cv2
import numpy as np
import pytest

from medeid.faces.mesh import LEFT_EYE, LEFT_IRIS, RIGHT_EYE, RIGHT_IRIS


@pytest.fixture
def drawn_eyes(light_face) -> tuple[np.ndarray, np.ndarray]:
    """The light face with eyes drawn exactly where the landmarks are: white, with a blue iris."""
    image, landmarks = light_face
    fine = cv2.resize(image, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    place = np.rint(((landmarks[:, :2] + 0.5) * 4 - 0.5) * 16).astype(np.int32)
    for contour, iris in ((LEFT_EYE, LEFT_IRIS), (RIGHT_EYE, RIGHT_IRIS)):
        eye = np.full_like(fine, 225)
        radius = np.linalg.norm(landmarks[list(iris[1:]), :2] - landmarks[iris[0], :2], axis=1).mean()
        cv2.circle(eye, place[iris[0]].tolist(), round(radius * 64), (30, 40, 120), -1, shift=4)
        inside = np.zeros(fine.shape[:2], np.uint8)
        cv2.fillPoly(inside, [place[list(contour)]], 1, shift=4)
        fine[inside > 0] = eye[inside > 0]
    return cv2.resize(fine, image.shape[:2], interpolation=cv2.INTER_AREA), landmarks
