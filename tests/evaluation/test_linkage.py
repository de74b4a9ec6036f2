from pathlib import Path

import numpy as np

from medeid.data.faces import FaceFolder
from medeid.evaluation.linkage import measure, other_visit

FACES = FaceFolder(Path(__file__).parents[2] / "examples" / "faces", "train")


def test_another_visit_is_another_photo_that_a_seed_repeats():
    image = FACES.image(0)
    visits = [other_visit(image, seed) for seed in (1, 1, 2)]
    assert np.array_equal(visits[0], visits[1]) and not np.array_equal(visits[0], visits[2])
    change = np.abs(visits[0].astype(int) - image).mean()
    assert visits[0].shape == image.shape and 1.0 < change < 60.0


def test_photos_of_one_person_are_linked_before_de_identification(pipeline):
    figures = measure(pipeline, FACES, count=3, seed=0)
    assert figures["people"] + figures["withheld"] == 3
    if figures["people"]:
        assert figures["linked_dlib_sources"] == 1.0 and 0.0 <= figures["linked_dlib_two_keys"] <= 1.0
