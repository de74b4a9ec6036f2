"""What the tests share: a real photo, the embedded model, loaded once, and a CLIP model that knows three colours."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage import data

from medeid import MedicalDeIDPipeline
from medeid.data.faces import FaceFolder
from medeid.faces.mesh import LEFT_EYE, LEFT_IRIS, RIGHT_EYE, RIGHT_IRIS

FACES = Path(__file__).parents[1] / "examples" / "faces"


def pytest_configure(config):
    """One thread a worker, as two that share two cores get in each other's way; also in the commands that tests run."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=1, help="How often the run of a batch is killed.")
    parser.addoption("--photos", type=int, default=3, help="Photos in that batch.")
    parser.addoption("--memory-photos", type=int, default=12, help="Photos of the batch whose memory is watched.")
    parser.addoption("--mutations", type=int, default=40, help="Changed files of each format that are read.")


@pytest.fixture(params=[2])
def threads(request):
    """Torch calculates in so many threads, by default two."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """uint8 [512, 512, 3]: a photo with one face, NASA, public domain."""
    photo = data.astronaut()
    photo.setflags(write=False)
    return photo


@pytest.fixture(scope="session")
def portrait(astronaut) -> Image.Image:
    return Image.fromarray(astronaut)


@pytest.fixture(scope="session")
def pipeline() -> MedicalDeIDPipeline:
    loaded = MedicalDeIDPipeline.from_pretrained("medeid-tiny")
    loaded.set_progress_bar_config(disable=True)
    return loaded


TINY_CLIP = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
}


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    """A random CLIP model in open_clip's form, with a vision transformer of timm as BiomedCLIP has.

    Only its projection is fitted, so that red, green and blue pictures are next to what is said of red, green and blue
    skin, and away from the rest.
    """
    folder = tmp_path_factory.mktemp("clip")
    (folder / "open_clip_config.json").write_text(json.dumps(TINY_CLIP))
    torch.manual_seed(0)
    clip = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")([f"a face with {c} skin" for c in ("red", "green", "blue")])
    with torch.no_grad():
        seen = clip.visual.trunk(2 * torch.eye(3)[:, :, None, None].expand(3, 3, 160, 160) - 1)
        apart = torch.linalg.pinv(clip.encode_text(tokens, normalize=True)).T
        clip.visual.head.proj.weight.copy_(torch.linalg.lstsq(seen, apart).solution.T)
        clip.logit_scale.fill_(4.6)
    save_file(clip.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def _face(index: int) -> tuple[np.ndarray, np.ndarray]:
    folder = FaceFolder(FACES, "train")
    return folder.image(index), folder.landmarks(index)


@pytest.fixture(scope="session")
def faces_dir() -> Path:
    """A folder of twelve faces in imagefolder style, with landmarks and two splits."""
    return FACES


@pytest.fixture(scope="session")
def dark_face() -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 [256, 256, 3] and landmarks float32 [478, 3] of a face with brown skin."""
    return _face(0)


@pytest.fixture(scope="session")
def light_face() -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 [256, 256, 3] and landmarks float32 [478, 3] of a face with light skin."""
    return _face(8)


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
