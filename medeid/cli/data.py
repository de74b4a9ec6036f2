"""`medeid simulate` and `medeid filter`."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .console import NOT_ALL_USED, errors, num_cores, prepare_output, progress_bar, say, stages, usage_error


@app.command()
def simulate(
    faces: Annotated[
        Path,
        typer.Argument(
            metavar="FACES",
            help="Folder of photos, or of aligned crops with metadata.jsonl and landmarks.npz. It is only read.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the data set.", show_default=False)],
    count: Annotated[int, typer.Option("-n", min=1, help="Number of images.", show_default=False)],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    signs: Annotated[
        str | None, typer.Option(help="Signs to draw from, with commas: ptosis,jaundice. All by default.")
    ] = None,
    healthy: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of images without a sign.")] = 0.15,
    size: Annotated[int, typer.Option(min=64, help="Side of the images in pixels.")] = 256,
    further: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Further signs on every face that is not healthy, whatever it has already, as far as they fit: "
            "more to learn from each picture. By default 0 to 3, mostly none, as in patients.",
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes; all cores by default. The result is the same for any number.")
    ] = None,
) -> None:
    """Make a data set of simulated patients: signs of disease on the faces in FACES.

    Writes images, masks and metadata.jsonl to OUT/train and OUT/validation, and
    the data card OUT/README.md, in the form of a Hugging Face imagefolder.
    No person is in both; in a folder of photos every face counts as a person.
    The signs hide nobody: made of photos of patients, it is as sensitive as they
    are. Names of photos are not in it, but those of aligned crops are (source).
    Each label (a sign on a side) leads equally many images.
    After an interruption the same command goes on where it was; the result is the
    same as without. A picture that cannot be read or shows no face is named, and
    the others are used.

    Exit status: 0 all pictures of FACES were used, 2 at least one was not, 1 wrong usage.

    Example: medeid simulate faces/ -o patients/ -n 1000 --seed 0
    """
    # These import torch: not for --help.
    from ..data.build import BuildOptions, build_set
    from ..data.sources import Skipped

    def skip(picture: Skipped) -> None:
        say(progress.console, "[bold red]skipped:[/]", f"{picture.file}: {picture.reason}")

    chosen = {} if signs is None else {"signs": [name.strip() for name in signs.split(",")]}
    try:
        options = BuildOptions(count, seed, healthy=healthy, size=size, further=further, **chosen)
        with progress_bar() as progress:
            result = build_set(faces, out, options, jobs or num_cores(), stages(progress), skip)
    except KeyboardInterrupt:
        raise usage_error(f"interrupted; the same command goes on with {out}") from None
    except BrokenExecutor as error:
        raise usage_error("a process died; give fewer --jobs if memory is short, the rest is made then") from error
    except (OSError, ValueError) as error:
        raise usage_error(str(error)) from error
    counts = ", ".join(f"{number} {split}" for split, number in result.counts.items())
    print(f"{count} images in {out} ({counts}); {result.made} of them made now")
    if result.skipped:
        say(errors, "[bold yellow]note:[/]", f"{result.skipped} pictures of {faces} were not used")
        raise typer.Exit(NOT_ALL_USED)


@app.command(name="filter")
def filter_set(
    dataset: Annotated[
        Path,
        typer.Argument(
            metavar="DATASET",
            help="Folder with train/metadata.jsonl and so on, as medeid simulate writes it. It is only read.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the report.")] = Path("filter-report"),
    originals: Annotated[
        Path | None,
        typer.Option(
            metavar="FACES",
            help="Photos of the patients: no picture may be too like one of them. If there are several of a patient, "
            "say whose they are in a metadata.jsonl (file_name, subject_id), or the limit gets too high.",
        ),
    ] = None,
    far: Annotated[
        float,
        typer.Option(help="Share of pairs of different originals that count as too like; sets the limit."),
    ] = 0.001,
) -> None:
    """Find what does not belong into the data set DATASET: leaks, poor pictures, implausible labels.

    Each picture is judged by its likeness to FACES (if given), its sharpness,
    exposure, size and face, by whether it is there twice, and by whether landmarks,
    masks and labels fit it. Writes to the folder of the report: report.md,
    histograms.png, measures.csv, flagged.csv with the reasons, and kept.txt with the
    names of all other pictures. Nothing in DATASET is changed.

    Exit status: 0 all was read (whatever was flagged), 2 a row of DATASET or a photo
    of FACES could not be used, 1 wrong usage.

    Example: medeid filter patients/ --originals clinic/ -o report/
    """
    for folder in (dataset, originals):
        if folder is not None and out.resolve().is_relative_to(folder.resolve()):
            raise usage_error(f"-o {out}: lies in {folder}, which is only read; choose another folder")
    prepare_output(out)
    from ..data.filters import run_filters  # imports torch: not for --help

    try:
        with progress_bar() as progress:
            report = run_filters(dataset, originals, false_accept_rate=far, on_progress=stages(progress))
        report.save(out)
    except (OSError, ValueError, ImportError) as error:
        raise usage_error(str(error)) from error
    for reason, number in report.counts().items():
        if number:
            print(f"{number:8d}  {reason}")
    for problem in report.not_run:
        say(errors, "[bold yellow]not run:[/]", problem)
    for problem in (*report.unreadable, *report.unusable_originals):
        say(errors, "[bold red]not read:[/]", problem)
    print(f"{len(report.kept)} of {len(report.rows)} pictures kept; the reasons are in {out}")
    if report.unreadable or report.unusable_originals:
        raise typer.Exit(NOT_ALL_USED)
