"""How long a photo takes and how much memory: `python -m medeid.evaluation.speed PHOTOS`."""

from __future__ import annotations

import contextlib
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from PIL import Image

if TYPE_CHECKING:
    from ..pipeline import MedicalDeIDPipeline

LANDMARK_CALLS = 50


def main(
    photos: Annotated[list[Path], typer.Argument(help="Photos with a face each.")],
    model: Annotated[str, typer.Option(help="medeid-tiny, a folder, or a name on the Hub.")] = "medeid-tiny",
    side: Annotated[int, typer.Option(help="The photos are scaled to this many pixels square.")] = 1024,
    runs: Annotated[int, typer.Option(help="Timed calls a photo.")] = 5,
    device: Annotated[str, typer.Option(help="A torch device.")] = "cpu",
) -> None:
    """Print the seconds that loading and a call take, and the peak memory of the process."""
    began = time.perf_counter()
    import torch

    from ..faces.mesh import LANDMARK_SIZE
    from ..pipeline import MedicalDeIDPipeline
    from .overhead import peak_memory

    pipeline = MedicalDeIDPipeline.from_pretrained(model).to(device)
    pipeline.set_progress_bar_config(disable=True)
    images = [Image.open(photo).convert("RGB").resize((side, side)) for photo in photos]
    pipeline(images[0], generator=torch.Generator().manual_seed(0))
    print(f"import, load and first call: {time.perf_counter() - began:.2f} s")
    medians = [_median_seconds(pipeline, image, runs) for image in images]
    told = f"median {statistics.median(medians):.2f} s, from {min(medians):.2f} to {max(medians):.2f} s"
    print(f"a call, {len(images)} photos, {runs} surrogates of each: {told}")
    torch.set_num_threads(1)
    crop, began = torch.rand(1, 3, LANDMARK_SIZE, LANDMARK_SIZE).to(device), time.perf_counter()
    with torch.no_grad():
        for _ in range(LANDMARK_CALLS):
            pipeline.landmark_net(crop)
    milliseconds = (time.perf_counter() - began) / LANDMARK_CALLS * 1000
    print(f"the landmark network: {milliseconds:.1f} ms a crop on one core")
    print(f"peak memory: {peak_memory(pipeline.device):.0f} MiB")


def _median_seconds(pipeline: MedicalDeIDPipeline, image: Image.Image, runs: int) -> float:
    import torch

    from ..records import VerificationError

    seconds = []
    for run in range(runs):
        began = time.perf_counter()
        with contextlib.suppress(VerificationError):  # it has taken its time, too
            pipeline(image, generator=torch.Generator().manual_seed(run))
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


if __name__ == "__main__":
    typer.run(main)
