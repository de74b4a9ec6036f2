"""`MedicalDeIDPipeline` of medeid for diffusers. The code itself is in the package, which must be installed."""

try:
    from medeid.pipeline import MedicalDeIDPipeline
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] != "medeid":
        raise
    raise ImportError("`MedicalDeIDPipeline` is in the package medeid: `pip install --upgrade medeid`.") from error

__all__ = ["MedicalDeIDPipeline"]
