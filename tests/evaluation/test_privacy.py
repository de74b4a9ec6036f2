import torch

from medeid.evaluation.privacy import rank1_rate


def test_rank1_counts_the_probes_that_find_their_own_row():
    gallery = torch.eye(4)
    assert rank1_rate(gallery, gallery) == 1.0
    assert rank1_rate(gallery.roll(1, 0), gallery) == 0.0
    assert rank1_rate(gallery[[0, 1, 3, 2]], gallery) == 0.5


def test_rank1_of_probes_in_another_order():
    gallery = torch.eye(4)
    assert rank1_rate(gallery[[2, 0]], gallery, own=torch.tensor([2, 0])) == 1.0
    assert rank1_rate(gallery[[2, 0]], gallery, own=torch.tensor([2, 1])) == 0.5
