"""Where surrogate identities come from: the fitted distribution of identity embeddings."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin


class SurrogatePrior(ModelMixin, ConfigMixin):
    """A normal distribution over the unit embeddings of a face recognizer.

    Recognizers put all faces into a narrow cone, so angles are only telling after the mean is taken off: *standardised*
    embeddings have zero mean and unit variance over all dimensions together.

    Args:
        embed_dim (`int`, *optional*, defaults to 128):
            Dimension D of an embedding.
        recognizer (`str`, *optional*, defaults to `"dlib"`):
            Name of the recognizer whose embeddings were fitted.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    factor: torch.Tensor

    @register_to_config
    def __init__(self, embed_dim: int = 128, recognizer: str = "dlib"):
        super().__init__()
        self.register_buffer("mean", torch.zeros(embed_dim))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("factor", torch.eye(embed_dim))

    @torch.no_grad()
    def fit(self, embeddings: torch.Tensor) -> SurrogatePrior:
        """Fits mean and covariance to embeddings float32 [N, D]. With few of them, draws stay in their span."""
        if len(embeddings) < 2:
            raise ValueError(
                f"`embeddings` has {len(embeddings)} rows; a covariance needs at least 2, better thousands."
            )
        self.mean.copy_(embeddings.mean(0))
        centred = embeddings - self.mean
        self.scale.copy_(centred.std())
        # The symmetric root: where some dimensions are not used, there is no Cholesky factor.
        variances, axes = torch.linalg.eigh((centred / self.scale).double().T.cov())
        self.factor.copy_(axes * variances.clamp(min=0).sqrt() @ axes.T)
        return self

    def standardise(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Descriptors [B, D] of the recognizer -> standardised embeddings [B, D]."""
        return (embeddings - self.mean) / self.scale

    @torch.no_grad()
    def draw(
        self,
        generator: torch.Generator,
        away_from: torch.Tensor | None = None,
        max_cosine: float = 0.15,
        candidates: int = 64,
    ) -> torch.Tensor:
        """Draws one standardised surrogate embedding.

        Of some random candidates, the nearest to the source that is still far enough away is taken: the main
        directions of a recognizer's space are sex and skin colour, and a surrogate of another kind would not fit the
        neck and the hair that stay. The candidates are random under `generator`, so the surrogate is no function of
        the source that could be inverted (unlike its negation).

        Args:
            generator (`torch.Generator`):
                A generator on the CPU; the same state gives the same candidates.
            away_from (`torch.Tensor`, *optional*):
                The source's standardised embedding [D].
            max_cosine (`float`, *optional*, defaults to 0.15):
                Candidates whose cosine to the source reaches this are refused. About a quarter of the pairs of
                different people exceed the default.
            candidates (`int`, *optional*, defaults to 64):
                Number of candidates.

        Returns:
            `torch.Tensor`: [D], on the device of the prior.

        Raises:
            ValueError: no candidate is far enough away.
        """
        noise = torch.randn(candidates, self.config.embed_dim, generator=generator).to(self.factor)
        drawn = noise @ self.factor.T
        if away_from is None:
            return drawn[0]
        cosine = torch.nn.functional.cosine_similarity(drawn, away_from.to(drawn)[None])
        cosine[cosine >= max_cosine] = -torch.inf
        nearest = cosine.argmax()
        if cosine[nearest].isinf():
            raise ValueError(
                f"None of {candidates} surrogates has a cosine below `max_cosine` {max_cosine}; raise one of the two."
            )
        return drawn[nearest]
