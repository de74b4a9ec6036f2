import numpy as np
import pytest
import torch

from medeid.evaluation.agreement import Signs, agreement, read_signs
from medeid.evaluation.quality import picture_features
from medeid.manifestations.taxonomy import LABELS, TAXONOMY

APPEARANCE = [name for name, row in TAXONOMY.items() if row.channels[0] == "appearance"]


def signs(*claims: tuple[str, ...]) -> Signs:
    """Faces with these labels, of severity 0.5, whose masks are the left half of the picture."""
    claimed = np.array([[label in each for label in LABELS] for each in claims])
    masks = np.zeros((len(claims), len(APPEARANCE), 4, 4), bool)
    for face, each in enumerate(claims):
        for label in each:
            if label.partition(":")[0] in APPEARANCE:
                masks[face, APPEARANCE.index(label.partition(":")[0]), :, :2] = True
    severities = np.where(claimed, np.float32(0.5), np.float32(0.1))
    return Signs(claimed, severities, masks, torch.zeros(len(claims), 1))


BEFORE = signs(("acne", "ptosis:left"), ("acne",), ("ptosis:left",), ())


def test_a_reading_agrees_with_itself():
    figures = agreement(BEFORE, BEFORE)
    assert (figures["accuracy"], figures["kappa"], figures["dice"]) == (1.0, 1.0, 1.0)
    assert (figures["severity_error"], figures["lost"], figures["new"]) == (0.0, 0.0, 0.0)
    assert set(figures["by_label"]) == {"acne", "ptosis:left"} and set(figures["dice_by_sign"]) == {"acne"}


def test_the_same_reading_for_everybody_agrees_by_chance():
    for everybody in ((), ("acne",), ("acne", "ptosis:left")):
        figures = agreement(BEFORE, signs(*[everybody] * 4))
        assert figures["kappa"] == pytest.approx(0.0) and figures["accuracy"] == 0.5


def test_lost_and_new_signs_are_counted():
    figures = agreement(BEFORE, signs(("acne",), ("acne",), ("jaundice", "pallor"), ()))
    assert figures["lost"] == 0.5 and figures["new"] == 0.5
    assert figures["by_label"]["ptosis:left"] == {
        "faces": 2,
        "accuracy": 0.5,
        "kappa": 0.0,
        "severity_error": pytest.approx(0.4),
    }


def test_dice_of_masks_that_moved_or_went():
    after = signs(("acne", "ptosis:left"), ("acne",), ("ptosis:left",), ())
    acne = APPEARANCE.index("acne")
    after.masks[0, acne] = np.roll(BEFORE.masks[0, acne], 1, axis=1)  # half of it overlaps
    after.masks[1, acne] = ~BEFORE.masks[1, acne]
    assert agreement(BEFORE, after)["dice"] == pytest.approx((0.5 + 0.0) / 2)


def test_an_encoder_reads_in_parts_what_it_reads_at_once(encoder):
    crops = np.random.default_rng(0).integers(256, size=(18, 64, 64, 3), dtype=np.uint8)
    read = read_signs(encoder, crops)
    assert read.claimed.shape == read.severities.shape == (18, len(LABELS)) and read.claimed.dtype == bool
    assert read.masks.shape == (18, len(APPEARANCE), 32, 32) and len(read[np.array([3, 5])].features) == 2
    torch.testing.assert_close(read.features, picture_features(encoder, crops, batch_size=18), rtol=1e-4, atol=1e-5)


def test_an_encoder_of_other_signs_is_refused():
    class Config:
        labels, manifestations = ("sneezing",), ("sneezing",)

    class Other:
        config = Config()

    with pytest.raises(ValueError, match="other labels than the taxonomy"):
        read_signs(Other(), np.zeros((1, 64, 64, 3), np.uint8))
