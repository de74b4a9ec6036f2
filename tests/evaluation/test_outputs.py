import numpy as np
import pytest
import torch

from medeid.evaluation.outputs import distinct_faces, read_both_ways, read_faces
from medeid.manifestations.encoder import ManifestationEncoder
from medeid.manifestations.taxonomy import LABELS, TAXONOMY

SIGNS = list(TAXONOMY)


@pytest.fixture
def pictures(rows) -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.array(row["image"])).permute(2, 0, 1) for row in rows]) / 255.0


@torch.no_grad()
def test_outputs_are_those_of_the_encoder_before_its_temperature(encoder, rows, pictures):
    encoder.temperature.uniform_(0.5, 2.0)
    outputs = read_faces(encoder, rows, batch_size=7)
    direct = encoder(pictures)
    np.testing.assert_allclose(outputs.raw_logits, direct.logits * encoder.temperature, atol=1e-4)
    np.testing.assert_allclose(outputs.probabilities(encoder.temperature), direct.logits.sigmoid(), atol=1e-5)
    np.testing.assert_allclose(outputs.mean_tokens, direct.token_mean.flatten(1), atol=1e-4)
    np.testing.assert_array_equal(outputs.labels, np.array(rows["labels"]) == 1)


@torch.no_grad()
def test_drawn_tokens_scatter_around_their_means_as_the_bottleneck_says(encoder, rows, pictures):
    outputs = read_faces(encoder, rows)
    spread = (0.5 * encoder(pictures).token_log_variance).exp().flatten(1).numpy()
    drawn = outputs.draw_tokens(5)
    scatter = (drawn - outputs.mean_tokens) / spread
    assert drawn.shape == (5, *outputs.mean_tokens.shape)
    assert abs(scatter.mean()) < 0.1
    assert scatter.std() == pytest.approx(1.0, abs=0.1)
    np.testing.assert_array_equal(drawn, outputs.draw_tokens(5))


def test_dice_is_told_of_signs_that_are_shown(encoder, rows):
    with torch.no_grad():
        for part in (encoder, encoder.eyes, encoder.skin):
            for head in (part.mask_head, part.fine_mask_head):
                head.weight.zero_()
            part.mask_head.bias.fill_(1.0)
    outputs = read_faces(encoder, rows)  # every mask covers the whole face
    shown = [any(each["manifestation"] == "port_wine_stain" for each in findings) for findings in rows["findings"]]
    np.testing.assert_array_equal(~np.isnan(outputs.dice[:, SIGNS.index("port_wine_stain")]), shown)
    assert np.isnan(outputs.dice[:, SIGNS.index("ptosis")]).all()
    told = outputs.dice[~np.isnan(outputs.dice)]
    assert ((0 < told) & (told < 1)).all()


@torch.no_grad()
def test_faces_read_both_ways_are_followed_by_their_mirror_images(encoder, rows, pictures):
    outputs = read_both_ways(encoder, rows)
    logits = torch.cat([encoder(pictures).logits, encoder(pictures.flip(3)).logits])
    np.testing.assert_allclose(outputs.raw_logits, logits, atol=1e-4)
    labels, mirrored = np.split(outputs.labels, 2)
    left, right = (LABELS.index(f"port_wine_stain:{side}") for side in ("left", "right"))
    assert labels[:, left].any()
    np.testing.assert_array_equal(mirrored[:, right], labels[:, left])
    np.testing.assert_array_equal(mirrored[:, LABELS.index("rosacea")], labels[:, LABELS.index("rosacea")])
    shown, seen = np.split(~np.isnan(outputs.dice), 2)
    np.testing.assert_array_equal(shown, seen)


def test_a_row_without_masks_has_no_dice(encoder, rows):
    bare = rows.select(range(4)).map(lambda row: {"mask": None})
    assert np.isnan(read_faces(encoder, bare).dice).all()


def test_chosen_rows(encoder, rows):
    outputs = read_faces(encoder, rows)
    healthy = ~outputs.labels.any(1)
    assert len(outputs[healthy]) == healthy.sum()
    assert not outputs[healthy].labels.any()


def test_repeated_pictures_are_left_out(rows):
    once = distinct_faces(rows)
    healthy = {row["subject_id"] for row in rows if not row["findings"]}
    assert sum(not row["findings"] for row in once) == len(healthy) < sum(not row["findings"] for row in rows)
    assert sum(bool(row["findings"]) for row in once) == sum(bool(row["findings"]) for row in rows)


def test_sets_and_encoders_that_do_not_fit(encoder, rows):
    with pytest.raises(ValueError, match="`rows` is empty"):
        read_faces(encoder, rows.select([]))
    with pytest.raises(ValueError, match="other labels"):
        read_faces(ManifestationEncoder(image_size=64, labels=LABELS[::-1]), rows)
