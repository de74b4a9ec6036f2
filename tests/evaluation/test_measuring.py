import pytest

from medeid.evaluation.classical import BlackBox
from medeid.evaluation.cohort import People
from medeid.evaluation.measuring import changed_region, grown_box, own_mask
from medeid.evaluation.methods import Medeid
from medeid.evaluation.protocol import Alias
from medeid.types import WHOLE_FACE

ALIAS = Alias(b"k" * 16, "patient")


@pytest.fixture
def people(pipeline, light_face, dark_face):
    return People.find(pipeline, [light_face[0], dark_face[0]], ["light", "dark"])


def test_our_own_method_changes_what_its_mask_says_and_nothing_else(people, pipeline):
    for row in range(len(people)):
        photo, box = people.photos[row], people.box(row)
        (result,) = Medeid(pipeline)([photo], [box], [ALIAS])
        if result is not None:
            weight = own_mask(pipeline, photo, box, WHOLE_FACE)
            changed = (result != photo).any(-1)
            assert not changed[weight == 0].any() and changed[weight > 0.5].mean() > 0.9
            return
    pytest.fail("both photos were withheld")


def test_a_box_is_found_by_what_changed_and_lies_in_the_grown_one(people):
    photo, box = people.photos[0], people.box(0)
    (result,) = BlackBox()([photo], [box], [ALIAS])
    region, allowed = changed_region(photo, result), grown_box(box, photo.shape)
    assert region.sum() == pytest.approx(box.area, rel=0.05) and not region[~allowed].any()
    assert 1.5 * box.area < allowed.sum() < 2.3 * box.area
    assert not changed_region(photo, photo).any()
