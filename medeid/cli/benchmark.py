"""`medeid benchmark`."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .app import app
from .console import NOT_ALL_USED, errors, num_cores, progress_bar, quiet, say, stages, usage_error
from .options import Device, Model

_MOST_JOBS = 8  # unless somebody says that there is memory for more


@app.command()
def benchmark(
    faces: Annotated[
        Path,
        typer.Argument(
            metavar="FACES",
            help="Folder of aligned crops with metadata.jsonl, landmarks.npz and a split validation, or of photos. "
            "It is only read.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for all that is made.", show_default=False)],
    methods: Annotated[
        str,
        typer.Option(
            help="Methods, with commas: medeid, medeid-0.5 (a privacy level), original, blur, pixelate, mask, eye-bar, "
            "k-same, deface, phi-anonymize-face, inpaint:MODEL (an inpainting model of diffusers, a folder or a name "
            "on the Hub)."
        ),
    ] = "medeid,blur,pixelate,mask,eye-bar",
    method_cmd: Annotated[
        list[str] | None,
        typer.Option(
            help="One more method: a command that reads the PNG {input} and writes the PNG {output}, of the same size, "
            "or none to withhold it. Can be given several times."
        ),
    ] = None,
    count: Annotated[int, typer.Option("-n", "--n", min=1, help="Number of patients.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same figures.")] = 0,
    model: Model = "medeid-tiny",
    judge: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="A second reader of signs, trained apart from the model: an encoder's folder, or that of a pipeline; "
            "none leaves it out.",
        ),
    ] = Path("medeid-judge"),
    clip: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER_OR_NAME",
            help="A CLIP model in open_clip's form, a folder or a name on the Hub: results are compared with photos in "
            "its features, too.",
        ),
    ] = None,
    device: Device = "cpu",
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes, of about 1 GB each; a core each by default, up to 8. Any number gives the same figures.",
        ),
    ] = None,
) -> None:
    """Measure methods of de-identification on simulated patients: privacy, utility and quality.

    Makes n patients of the faces of the split validation, lets every method
    de-identify them, attacks the results, and reads the signs before and after.
    Writes OUT/results.json (the same bytes for the same seed), OUT/report.html,
    which needs no other file, and all pictures to OUT.
    After an interruption the same command goes on where it was. What is there is not
    made again, but measured anew, also when methods are added.
    A method that fails on photos is named, and the others go on.

    Exit status: 0 all was done, 2 a method failed on at least one photo, or a picture of
    FACES could not be used, 1 wrong usage.

    Example: medeid benchmark faces/ -o benchmark/ --methods medeid,blur --method-cmd 'tool {input} {output}'
    """
    quiet()
    # These import torch: not for --help.
    from ..data.sources import Skipped
    from ..evaluation.benchmark import run_benchmark
    from ..evaluation.clip_features import ClipFeatures
    from ..evaluation.manifestations import load_encoder
    from ..evaluation.methods import Command
    from ..evaluation.protocol import Method
    from ..evaluation.summary import print_table
    from ..pipeline import MedicalDeIDPipeline

    try:
        pipeline = MedicalDeIDPipeline.from_pretrained(model).to(device)
    except (OSError, ValueError, RuntimeError) as error:
        raise usage_error(f"--model {model} --device {device}: {error}") from error
    skipped: list[Skipped] = []
    try:
        named = [name.strip() for name in methods.split(",") if name.strip()]
        chosen: list[str | Method] = [*named, *(Command(each) for each in method_cmd or ())]
        reader = None if judge == Path("none") else load_encoder(judge)
        features = None if clip is None else ClipFeatures(clip, device)
        with progress_bar() as progress:
            results, timing = run_benchmark(
                faces,
                out,
                chosen,
                count,
                seed,
                pipeline,
                reader,
                features,
                jobs or min(num_cores(), _MOST_JOBS),
                stages(progress),
                skipped.append,
            )
    except KeyboardInterrupt:
        raise usage_error(f"interrupted; the same command goes on with {out}") from None
    except BrokenExecutor as error:
        raise usage_error("a process died; the same command goes on where it was") from error
    except (OSError, ValueError) as error:
        raise usage_error(str(error)) from error
    print_table(results, timing, Console())
    for each in skipped:
        say(errors, "[bold red]skipped:[/]", f"{each.file}: {each.reason}")
    print(f"the figures are in {out / 'results.json'}, and shown in {out / 'report.html'}")
    if skipped or any(figures["failures"] for figures in results["methods"].values()):
        raise typer.Exit(NOT_ALL_USED)
