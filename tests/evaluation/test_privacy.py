import torch

from medeid.evaluation.privacy import rank1_rate, verification_rate


def test_rank1_counts_the_probes_that_find_their_own_row():
    gallery = torch.eye(4)
    assert rank1_rate(gallery, gallery) == 1.0
    assert rank1_rate(gallery.roll(1, 0), gallery) == 0.0
    assert rank1_rate(gallery[[0, 1, 3, 2]], gallery) == 0.5


def test_rank1_of_probes_in_another_order():
    gallery = torch.eye(4)
    assert rank1_rate(gallery[[2, 0]], gallery, own=torch.tensor([2, 0])) == 1.0
    assert rank1_rate(gallery[[2, 0]], gallery, own=torch.tensor([2, 1])) == 0.5


def test_verification_accepts_what_is_nearer_than_strangers_are():
    torch.manual_seed(0)
    gallery = torch.nn.functional.normalize(torch.randn(200, 16), dim=1)
    assert verification_rate(gallery, gallery) == 1.0
    assert verification_rate(gallery.roll(1, 0), gallery) < 0.02
    half = torch.cat([gallery[:100], gallery[100:].roll(1, 0)])
    assert abs(verification_rate(half, gallery) - 0.5) < 0.02
    pairs = gallery @ gallery.T
    accepted = verification_rate(gallery.roll(1, 0), gallery, far=0.5)
    assert 0.35 < accepted < 0.65 and pairs.diagonal().min() > 0.99
