import pytest
import torch

from medeid.manifestations.close_ups import EyeTower, SkinTower
from medeid.manifestations.encoder import ManifestationEncoder
from medeid.manifestations.taxonomy import LABELS, TAXONOMY

SIGNS = list(TAXONOMY)


@pytest.fixture(scope="module")
def tower() -> EyeTower:
    torch.manual_seed(0)
    return EyeTower(LABELS, SIGNS, channels=16, mask_size=128).eval()


@pytest.fixture(scope="module")
def skin_tower() -> SkinTower:
    torch.manual_seed(0)
    return SkinTower(LABELS, SIGNS, channels=16, mask_size=128).eval()


@pytest.fixture(scope="module")
def crops() -> torch.Tensor:
    return torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_shapes(tower, crops):
    output = tower(crops)
    count = len(tower.sign_index)
    assert output.answers.shape == (2, 2, count, 2)
    assert output.mask_logits.shape == (2, count, 32, 64)
    assert output.memory.shape == (2, len(tower.position), 16)


@torch.no_grad()
def test_shapes_of_the_skin(skin_tower, crops):
    output = skin_tower(crops)
    count = len(skin_tower.sign_index)
    assert output.answers.shape == (2, 2, count, 2)
    assert output.mask_logits.shape == (2, count, 128, 128)
    assert output.memory.shape == (2, len(skin_tower.position), 16)


def test_the_towers_share_the_signs_out(tower, skin_tower):
    assert sorted([*tower.sign_index.tolist(), *skin_tower.sign_index.tolist()]) == list(range(len(SIGNS)))


@torch.no_grad()
def test_a_lesion_is_told_of_the_side_that_it_is_on(skin_tower, crops):
    other = crops.clone()
    other[:, :, 180:200, 20:40] = 1.0  # the right cheek, far from the midline
    before, after = skin_tower(crops).answers, skin_tower(other).answers
    torch.testing.assert_close(after[:, 1], before[:, 1], atol=0.05, rtol=0)
    assert not torch.allclose(after[:, 0], before[:, 0], atol=0.05, rtol=0)


@torch.no_grad()
def test_a_mirrored_face_has_the_same_signs_on_the_other_side(tower, crops):
    output, mirrored = tower(crops), tower(crops.flip(3))
    torch.testing.assert_close(mirrored.answers, output.answers.flip(1))
    torch.testing.assert_close(mirrored.mask_logits, output.mask_logits.flip(3))


@torch.no_grad()
def test_an_eye_is_judged_beside_the_other_one(tower, crops):
    other = crops.clone()
    other[:, :, 88:152, 128:192] = 0.5  # the patient's left eye
    before, after = tower(crops), tower(other)
    assert not torch.allclose(before.answers[:, 0], after.answers[:, 0])
    torch.testing.assert_close(before.mask_logits[..., :32], after.mask_logits[..., :32])


@torch.no_grad()
def test_nothing_but_the_eyes_is_seen(tower, crops):
    other = torch.zeros_like(crops)
    other[:, :, 88:152, 64:192] = crops[:, :, 88:152, 64:192]
    torch.testing.assert_close(tower(other).answers, tower(crops).answers)


def test_windows_are_put_back_where_they_were_cut(tower):
    masks = torch.rand(2, 3, 128, 128)
    placed = tower.placed(tower.visible(masks))
    assert torch.equal(placed[..., 44:76, 32:96], masks[..., 44:76, 32:96])
    assert placed.count_nonzero() == 2 * 3 * 32 * 64


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("ptosis", {"ptosis:left", "ptosis:right"}),
        ("scleral_icterus", {"scleral_icterus"}),
        ("naevus", {"naevus:left", "naevus:right"}),
        ("rosacea", {"rosacea"}),
    ],
)
def test_what_a_tower_says_counts_for_its_labels(tower, skin_tower, crops, name, labels):
    told = tower if SIGNS.index(name) in tower.sign_index else skin_tower
    output = told(crops)
    output.answers.zero_()
    output.answers[:, :, told.sign_index.tolist().index(SIGNS.index(name)), 0] = 1.0
    added = told.add_answers(torch.zeros(2, len(LABELS), 2), output)
    assert {LABELS[number] for number in torch.nonzero(added[0, :, 0]).flatten()} == labels
    assert added.sum() == 2 * len(labels)


@torch.no_grad()
def test_the_encoder_adds_up_what_its_towers_see(crops):
    torch.manual_seed(0)
    encoder = ManifestationEncoder(num_tokens=2, token_dim=8).eval()
    before = encoder(crops)
    for tower in (encoder.eyes, encoder.skin):
        tower.mask_head.bias += 1.0
    after = encoder(crops)
    change = after.mask_logits - before.mask_logits
    torch.testing.assert_close(change[:, encoder.skin.sign_index], torch.ones_like(change[:, encoder.skin.sign_index]))
    of_eyes = change[:, encoder.eyes.sign_index]
    torch.testing.assert_close(of_eyes, encoder.eyes.placed(encoder.eyes.visible(torch.ones_like(of_eyes))))
    assert (after.logits > before.logits).all()  # more of a mask is more evidence


def test_a_sign_without_a_label_is_named():
    with pytest.raises(ValueError, match="lacks naevus:left, naevus:right"):
        SkinTower([label for label in LABELS if not label.startswith("naevus")], SIGNS, channels=16, mask_size=64)
