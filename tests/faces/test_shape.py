import pytest
import torch

from medeid.faces.mesh import NUM_LANDMARKS
from medeid.faces.shape import ShapePrior


@pytest.fixture
def landmarks():
    generator = torch.Generator().manual_seed(0)
    axes = torch.randn(3, NUM_LANDMARKS * 3, generator=generator)
    return (torch.randn(400, 3, generator=generator) @ axes + 128.0).unflatten(1, (NUM_LANDMARKS, 3))


def test_drawn_shapes_vary_as_the_fitted_ones_do(landmarks):
    prior = ShapePrior(num_components=3).fit(landmarks)
    generator = torch.Generator().manual_seed(1)
    drawn = torch.stack([prior.draw(generator, spread=1.0) for _ in range(400)])
    torch.testing.assert_close(drawn.mean(0), landmarks.mean(0), atol=0.5, rtol=0)
    torch.testing.assert_close(drawn.std(0), landmarks.std(0), atol=0.4, rtol=0.2)


def test_a_seed_repeats_a_shape(landmarks):
    prior = ShapePrior(num_components=3).fit(landmarks)
    first, same, other = (prior.draw(torch.Generator().manual_seed(seed)) for seed in (4, 4, 5))
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_too_few_faces_are_an_error(landmarks):
    with pytest.raises(ValueError, match="components"):
        ShapePrior(num_components=32).fit(landmarks[:32])
