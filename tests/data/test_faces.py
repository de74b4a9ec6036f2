import json

import numpy as np
import pytest
from PIL import Image

from medeid.data.faces import FaceFolder


@pytest.fixture
def root(tmp_path):
    rows = []
    for index in range(5):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / f"{index}.png")
        split = "validation" if index == 1 else "train"
        rows.append({"file_name": f"{index}.png", "split": split, "group": "b" if index == 4 else "a", "sex": "female"})
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    np.savez(tmp_path / "landmarks.npz", landmarks=np.arange(5)[:, None, None] * np.ones((5, 478, 3), np.float16))
    return tmp_path


def test_a_split_keeps_images_and_landmarks_together(root):
    folder = FaceFolder(root, "train")
    assert len(folder) == 4
    assert [int(folder.image(i)[0, 0, 0]) for i in range(4)] == [0, 2, 3, 4]
    assert [float(folder.landmarks(i)[0, 2]) for i in range(4)] == [0, 2, 3, 4]
    np.testing.assert_allclose(folder.landmarks(1)[0], (1.5, 1.5, 2.0))


def test_group_weights_even_out_the_groups(root):
    folder = FaceFolder(root, "train")
    np.testing.assert_allclose(folder.group_weights(0.0), 0.25)
    np.testing.assert_allclose(folder.group_weights(1.0), [1 / 6, 1 / 6, 1 / 6, 1 / 2])


def test_a_folder_that_does_not_fit_is_an_error(root, tmp_path):
    with pytest.raises(ValueError, match="there are: .*train"):
        FaceFolder(root, "test")
    with pytest.raises(ValueError, match="metadata.jsonl"):
        FaceFolder(tmp_path / "nothing", "train")


@pytest.mark.parametrize("array", [np.zeros((5, 478)), np.array([None] * 5)])
def test_landmarks_of_another_form_are_an_error(array, root):
    np.savez(root / "landmarks.npz", landmarks=array)
    with pytest.raises(ValueError, match=r"landmarks.npz: .*`landmarks`.* Find the landmarks again"):
        FaceFolder(root, "train")


def test_a_file_that_is_no_npz_is_an_error(root):
    np.save(root / "landmarks.npy", np.zeros((5, 478, 3)))
    (root / "landmarks.npy").replace(root / "landmarks.npz")
    with pytest.raises(ValueError, match="landmarks.npz: holds no readable array"):
        FaceFolder(root, "train")
