"""How long a photo takes and how much memory: `python -m medeid.evaluation.speed PHOTO`."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

LANDMARK_CALLS = 50


def main(
    photo: Annotated[Path, typer.Argument(help="A photo with a face.")],
    model: Annotated[str, typer.Option(help="medeid-tiny, a folder, or a name on the Hub.")] = "medeid-tiny",
    side: Annotated[int, typer.Option(help="The photo is scaled to this many pixels square.")] = 1024,
    runs: Annotated[int, typer.Option(help="Timed calls, after one that warms up.")] = 5,
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
    image = Image.open(photo).convert("RGB").resize((side, side))
    pipeline(image)
    print(f"import, load and first call: {time.perf_counter() - began:.2f} s")
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        pipeline(image)
        seconds.append(time.perf_counter() - began)
    print(f"a call: median {statistics.median(seconds):.2f} s, from {min(seconds):.2f} to {max(seconds):.2f} s")
    torch.set_num_threads(1)
    crop, began = torch.rand(1, 3, LANDMARK_SIZE, LANDMARK_SIZE).to(device), time.perf_counter()
    with torch.no_grad():
        for _ in range(LANDMARK_CALLS):
            pipeline.landmark_net(crop)
    milliseconds = (time.perf_counter() - began) / LANDMARK_CALLS * 1000
    print(f"the landmark network: {milliseconds:.1f} ms a crop on one core")
    print(f"peak memory: {peak_memory(pipeline.device):.0f} MiB")


if __name__ == "__main__":
    typer.run(main)
