"""Filters for a data set of patients' faces: privacy, quality, and whether pictures, masks and labels fit."""

from .limits import Limit
from .plausibility import Predictor
from .report import FilterReport, ReportRow
from .run import LIMITS, run_filters

__all__ = ["LIMITS", "FilterReport", "Limit", "Predictor", "ReportRow", "run_filters"]
