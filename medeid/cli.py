"""The command line: parses, calls, prints."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from . import __version__

USAGE, NOT_ALL_RELEASED = 1, 2


class _Commands(typer.core.TyperGroup):
    """Ends with 1 on wrong usage, where typer ends with 2: here 2 says that a photo was not released."""

    @staticmethod
    @contextmanager
    def _usage_status() -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if getattr(error, "exit_code", None) == 2 and not isinstance(error, typer.Exit):
                error.exit_code = USAGE  # type: ignore[attr-defined]
            raise

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with self._usage_status():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with self._usage_status():
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Commands,
    help="De-identify the faces in medical photos: a photo of nobody in which a clinician reads the same disease.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
errors = Console(stderr=True)


def _print_version(value: bool) -> None:
    if value:
        print(f"medeid {__version__}")
        raise typer.Exit()


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None: ...


def _say(to: Console, label: str, message: str) -> None:
    """Prints a message as it is: a file's name may hold brackets, which rich would take for markup."""
    to.print(f"{label} {escape(message)}", highlight=False, soft_wrap=True)


def _usage_error(message: str) -> typer.Exit:
    _say(errors, "[bold red]error:[/]", message)
    return typer.Exit(USAGE)


def _read_boxes(path: Path | None, photos: list[Path]) -> dict[Path, list]:
    """The boxes file: a list of faces for one photo, or an object from file name to such a list."""
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise _usage_error(f"--boxes {path}: no readable JSON ({error})") from error
    if isinstance(content, list):
        if len(photos) != 1:
            raise _usage_error(
                f"--boxes {path}: holds one list, but there are {len(photos)} photos; map names to lists"
            )
        return {photos[0]: content}
    if not isinstance(content, dict):
        raise _usage_error(f"--boxes {path}: must hold a list of faces, or an object from file name to such a list")
    known = {photo.name: photo for photo in photos}
    unknown = sorted(set(content) - set(known))
    if unknown:
        raise _usage_error(f"--boxes {path}: names photos that are not given: {', '.join(unknown)}")
    return {known[name]: faces for name, faces in content.items()}


def _output_names(photos: list[Path]) -> list[str]:
    """One stem a photo; photos of the same name in different folders get a number."""
    names: list[str] = []
    for photo in photos:
        name, number = photo.stem, 2
        while name in names:
            name, number = f"{photo.stem}-{number}", number + 1
        names.append(name)
    return names


def _prepare_output(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".partial-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _usage_error(f"-o {out}: cannot be written to ({error.strerror}); choose another folder") from error


@app.command()
def deid(
    photos: Annotated[
        list[Path], typer.Argument(metavar="PHOTO...", help="Photos to de-identify.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.", show_default=False)],
    model: Annotated[
        str, typer.Option(help="medeid-tiny (inside the package), a folder, or a Hub id.")
    ] = "medeid-tiny",
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps; the model's own by default.")] = None,
    guidance: Annotated[float | None, typer.Option(min=1.0, help="Guidance towards the new identity.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Repeats a result; by default every run is new.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps ...")] = "cpu",
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="JSON with your own faces instead of detection: a list of objects with box (x0, y0, x1, y1) and, if "
            "you know them, points5 (x, y of both eyes, nose and both mouth corners, from image left); or an object "
            "from file name to such a list."
        ),
    ] = None,
) -> None:
    """Replace every face in each PHOTO by that of somebody who does not exist.

    Writes OUT/NAME.png, lossless and without metadata: everything but the face stays as it was to the bit.
    What was done is told in OUT/records.jsonl, without names.
    A photo that cannot be used, has no face or fails verification is not written; the others go on.

    Exit status: 0 all photos were released, 2 at least one was not, 1 wrong usage.

    Example: medeid deid photo.jpg -o out/
    """
    given = _read_boxes(boxes, photos)
    _prepare_output(out)
    warnings.filterwarnings("ignore")
    # These import torch and diffusers: not for --help.
    from diffusers.utils import logging as diffusers_logging

    from .clinical.batch import Deidentifier

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()

    try:
        worker = Deidentifier(model, device, steps, guidance, seed)
    except (OSError, ValueError, RuntimeError) as error:
        raise _usage_error(f"--model {model} --device {device}: {error}") from error
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    failures: list[str] = []
    records_path = out / "records.jsonl"
    with Progress(*columns, console=errors, transient=True) as progress, open(records_path, "w") as records:
        task = progress.add_task("De-identifying", total=len(photos))
        for index, (photo, name) in enumerate(zip(photos, _output_names(photos), strict=True)):
            result = worker.run(index, photo, out, name, given.get(photo))
            records.write(json.dumps(asdict(result.record)) + "\n")
            records.flush()
            if result.reason:
                failures.append(f"{photo}: {result.reason}")
                _say(progress.console, "[bold red]not released:[/]", failures[-1])
            elif result.record.rejected:
                note = f"{photo}: look at it, candidates for a face were left: {'; '.join(result.record.rejected)}"
                _say(progress.console, "[bold yellow]note:[/]", note)
            progress.advance(task)
    released = len(photos) - len(failures)
    print(f"{released} of {len(photos)} photos released to {out}")
    if failures:
        raise typer.Exit(NOT_ALL_RELEASED)


if __name__ == "__main__":
    app()
