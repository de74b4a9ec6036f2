"""Where surrogate identities come from: the fitted distribution of identity embeddings."""

from __future__ import annotations

import hashlib
import hmac
import math

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin

from .keys import LEAST_BYTES

_OTHER_KIND = -0.2  # product of two main coordinates from which on two faces are clearly of different sex


class SurrogatePrior(ModelMixin, ConfigMixin):
    """A normal distribution over the unit embeddings of a face recognizer.

    Recognizers put all faces into a narrow cone, so angles are only telling after the mean is taken off: *standardised*
    embeddings have zero mean and unit variance over all dimensions together.

    Args:
        embed_dim (`int`, *optional*, defaults to 128):
            Dimension D of an embedding.
        recognizer (`str`, *optional*, defaults to `"dlib"`):
            Name of the recognizer whose embeddings were fitted.
        truncation (`float`, *optional*, defaults to 1.2):
            Where the normal distribution is cut off along each principal axis, in standard deviations. At the ends of
            the axes are glasses, baldness and grimaces, which do not fit the photo around them. Surrogates still differ
            as much as people do: what is left is spread to the fitted variance.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    factor: torch.Tensor

    @register_to_config
    def __init__(self, embed_dim: int = 128, recognizer: str = "dlib", truncation: float = 1.2):
        super().__init__()
        self.register_buffer("mean", torch.zeros(embed_dim))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("factor", torch.eye(embed_dim))
        self._decomposed: tuple = (None, 0, ())  # a factor, its version, and its main axes

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

    def main_coordinates(self, standardised: torch.Tensor) -> torch.Tensor:
        """Where embeddings [B, D] are along the direction in which faces differ most, which is sex; of variance 1."""
        deviations, axes = self._main_axes()
        return (standardised.cpu().double() @ axes[:, -1] / deviations[-1]).to(standardised)

    @torch.no_grad()
    def draw(
        self,
        generator: torch.Generator,
        away_from: torch.Tensor | None = None,
        max_cosine: float = 0.15,
        candidates: int = 64,
    ) -> torch.Tensor:
        """Draws one standardised surrogate embedding.

        Of some random candidates that are not clearly of the other sex, the nearest to the source is taken that is
        still far enough away: a surrogate of another kind would not fit the neck and the hair that stay. If none is,
        the nearest is turned away. The candidates are random under `generator`, so the surrogate is no function of the
        source that could be inverted (unlike its negation).

        Args:
            generator (`torch.Generator`):
                A generator on the CPU; the same state gives the same candidates.
            away_from (`torch.Tensor`, *optional*):
                The source's standardised embedding [D].
            max_cosine (`float`, *optional*, defaults to 0.15):
                The largest cosine to the source. About a quarter of the pairs of different people exceed the default.
            candidates (`int`, *optional*, defaults to 64):
                Number of candidates.

        Returns:
            `torch.Tensor`: [D], on the device of the prior.
        """
        drawn = self._candidates(generator, candidates)
        if away_from is None:
            return drawn[0]
        source = away_from.to(drawn)
        nearness = torch.nn.functional.cosine_similarity(drawn, source[None])
        rank = 4.0 * (nearness < max_cosine) + 2.0 * self._alike(drawn, source) + nearness  # in this order
        return _turned_away(drawn[rank.argmax()], source, max_cosine)

    @torch.no_grad()
    def draw_alike(
        self,
        generator: torch.Generator,
        source: torch.Tensor,
        max_cosine: float = 0.15,
        relative: torch.Generator | None = None,
        kinship: float = 0.0,
    ) -> torch.Tensor:
        """Draws the same standardised surrogate for every photo of one person, as far as a generator says the same.

        [`draw`] chooses among candidates by the source, and by another photo of the same person it may choose another
        one. Here there is a single one, which depends on the source as little as can be: who is clearly of the other
        sex is mirrored along that axis, and who is too near to the source is turned away as far as it takes. No more of
        the source is asked for: what the surrogates of two keys have in common with it, they have in common with each
        other, and by that they could be linked.

        Args:
            generator (`torch.Generator`):
                A generator on the CPU; the same state gives the same surrogate.
            source (`torch.Tensor`):
                The source's standardised embedding [D].
            max_cosine (`float`, *optional*, defaults to 0.15):
                The largest cosine to the source.
            relative (`torch.Generator`, *optional*):
                Draws another surrogate, whom this one resembles.
            kinship (`float`, *optional*, defaults to 0.0):
                In [0, 1]: how much, as the cosine that is to be expected between the two.

        Returns:
            `torch.Tensor`: [D], on the device of the prior.
        """
        drawn = self._of_its_sex(self._candidates(generator, 1)[0], source)
        if relative is not None:
            first = self._of_its_sex(self._candidates(relative, 1)[0], source)
            drawn = kinship * first + math.sqrt(1.0 - kinship**2) * drawn
        return _turned_away(drawn, source.to(drawn), max_cosine)

    def _of_its_sex(self, drawn: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        """A candidate [D], mirrored if it is clearly of another sex than the source."""
        if self._alike(drawn[None], source)[0]:
            return drawn
        axis = self._main_axes()[1][:, -1].to(drawn)
        return drawn - 2.0 * (drawn @ axis) * axis

    def _main_axes(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Deviations float64 [D] along the main axes [D, D] of identities, on the CPU; decomposed once."""
        known, version, decomposed = self._decomposed
        if known is not self.factor or version != self.factor._version:
            decomposed = torch.linalg.eigh(self.factor.cpu().double())
            self._decomposed = self.factor, self.factor._version, decomposed
        return decomposed

    def _alike(self, drawn: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        """bool [K]: which candidates [K, D] are not clearly of another sex than the source."""
        coordinates = self.main_coordinates(torch.cat([drawn, source.to(drawn)[None]]))
        return coordinates[:-1] * coordinates[-1] > _OTHER_KIND

    def _candidates(self, generator: torch.Generator, count: int) -> torch.Tensor:
        """Standardised embeddings [count, D] of people who do not exist."""
        noise = torch.randn(count, self.config.embed_dim, generator=generator)
        deviations, axes = self._main_axes()
        return (_truncated(noise.double(), self.config.truncation) * deviations @ axes.T).to(self.factor)


def _turned_away(embedding: torch.Tensor, source: torch.Tensor, max_cosine: float) -> torch.Tensor:
    """An embedding [D] as it is, or turned away from another one until their cosine is no larger; its length stays."""
    towards, length = torch.nn.functional.normalize(source, dim=0), embedding.norm()
    along = embedding @ towards
    if along <= max_cosine * length:
        return embedding
    across = torch.nn.functional.normalize(embedding - along * towards, dim=0)
    return length * (max_cosine * towards + math.sqrt(1.0 - max_cosine**2) * across)


def _truncated(noise: torch.Tensor, limit: float) -> torch.Tensor:
    """Standard normal noise as one between two limits, of variance 1 again."""
    share = math.erf(limit / math.sqrt(2.0))
    density = math.exp(-0.5 * limit**2) / math.sqrt(2.0 * math.pi)
    deviation = math.sqrt(1.0 - 2.0 * limit * density / share)
    return torch.erfinv(torch.erf(noise / math.sqrt(2.0)) * share) * math.sqrt(2.0) / deviation


class SurrogateIdentity:
    """Who a patient becomes, under a secret key: the same person in every photo and at every visit.

    The key and the patient's pseudonym seed the draw by HMAC-SHA-256 (RFC 2104). Without the key nobody can tell which
    surrogates are of one patient, nor find out a patient's by trying pseudonyms; under another key they are others.

    Args:
        key (`bytes`):
            At least 16 bytes, see [`medeid.identity.keys`]. It is kept in memory only.

    Raises:
        `ValueError`: the key is too short.
    """

    def __init__(self, key: bytes):
        if len(key) < LEAST_BYTES:
            raise ValueError(f"`key` must have at least {LEAST_BYTES} bytes, but has {len(key)}. See `medeid keygen`.")
        self._key = bytes(key)

    def __repr__(self) -> str:
        return "SurrogateIdentity(key=...)"

    def __reduce__(self):
        raise TypeError("A SurrogateIdentity holds a key, and is not pickled: a pickle would be a copy of it.")

    def seed(self, pseudonym: str, attempt: int = 1) -> int:
        """The seed of a patient's surrogate, in [0, 2**63).

        Args:
            pseudonym (`str`):
                What the patient is called in the study. It must not be empty.
            attempt (`int`, *optional*, defaults to 1):
                Which surrogate: the next one is for a photo whose first does not pass the checks.

        Raises:
            `ValueError`: the pseudonym is empty.
        """
        if not pseudonym.strip():
            raise ValueError("`pseudonym` is empty. Give the name that the patient has in your study.")
        message = f"medeid surrogate\0{attempt}\0{pseudonym}".encode()
        return int.from_bytes(hmac.digest(self._key, message, hashlib.sha256)[:8], "big") >> 1
