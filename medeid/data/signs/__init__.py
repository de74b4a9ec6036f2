"""One function for each manifestation of the taxonomy, which paints it on a face."""

# Importing them enters their simulators in the register.
from . import brow, eye_surface, face_shape, gaze, lesions, lid_skin, lids, pigmentation, rash, scars, tone  # noqa: F401
from .registry import SIMULATORS, Change, Stage, simulates

__all__ = ["SIMULATORS", "Change", "Stage", "simulates"]
