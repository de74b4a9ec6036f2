"""medeid: medical face de-identification."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["MedicalDeIDPipeline", "NoFaceFoundError", "VerificationError", "__version__"]

if TYPE_CHECKING:
    from .pipeline import MedicalDeIDPipeline
    from .records import NoFaceFoundError, VerificationError


def __getattr__(name: str) -> Any:
    # Lazy: `medeid --help` should not wait for torch.
    if name in __all__:
        from . import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
