"""What a measure must be for a picture to be kept, and where that limit comes from."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """A measure's limit.

    Args:
        measure (`str`):
            Column of the report's table.
        reason (`str`):
            What is said of a picture beyond the limit.
        basis (`str`):
            How the limit was chosen.
        low, high (`float`, *optional*):
            The picture is flagged if the measure is below `low` or above `high`.
        digits (`int`, *optional*, defaults to 2):
            Decimals shown.
    """

    measure: str
    reason: str
    basis: str
    low: float = -math.inf
    high: float = math.inf
    digits: int = 2

    @property
    def text(self) -> str:
        bounds = [("at least", self.low), ("at most", self.high)]
        return " and ".join(f"{word} {value:.{self.digits}f}" for word, value in bounds if math.isfinite(value))

    def judge(self, value: float, what: str = "") -> list[str]:
        """The reason to flag a picture with this value, or none. NaN, which was not measured, is no reason.

        Args:
            value (`float`):
                The measure.
            what (`str`, *optional*):
                The finding or label that the value belongs to.
        """
        if math.isnan(value) or self.low <= value <= self.high:
            return []
        of = f" of {what}" if what else ""
        return [f"{self.reason}: {self.measure}{of} is {value:.{self.digits}f}, must be {self.text}"]
