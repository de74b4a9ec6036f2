"""What a result is worth, in numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["run_benchmark"]

if TYPE_CHECKING:
    from .benchmark import run_benchmark


def __getattr__(name: str) -> Any:
    # Lazy: whoever wants one figure should not wait for all that a benchmark needs.
    if name in __all__:
        from . import benchmark

        return getattr(benchmark, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
