"""`medeid verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .app import app
from .console import NOT_ALL_USED, errors, progress_bar, quiet, say, usage_error
from .options import Boxes, Device, Model, list_sources, parse_preserve, read_boxes

if TYPE_CHECKING:
    from ..clinical.verification import Pair, PairReport


@app.command()
def verify(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="A photo or DICOM file, or a folder of them.", show_default=False)
    ],
    output: Annotated[
        Path,
        typer.Argument(metavar="OUTPUT", help="What was made of it, or the folder of that.", show_default=False),
    ],
    model: Model = "medeid-tiny",
    preserve: Annotated[
        str, typer.Option(help="Signs that were to be preserved, as in medeid deid: auto, none, or names.")
    ] = "auto",
    device: Device = "cpu",
    boxes: Boxes = None,
) -> None:
    """Check again that OUTPUT does not show who SOURCE is, and shows the same disease.

    Asks the recognizers whether they still know a face, the encoder whether a sign
    is lost or has come up, and the detectors whether there is a face, and none but
    those that were replaced. Of DICOM it looks at every frame, and not at the
    header. Nothing is written, and the files are only read.
    In two folders those belong together whose names are the same up to the suffix,
    also in the folders in them. Sources of which nothing was released are counted;
    a result without its source fails.
    A blurred face is likely to fail, as it shows no signs.

    Exit status: 0 all pairs passed, 2 at least one failed or could not be used, 1 wrong usage.

    Example: medeid verify photos/ out/
    """
    signs = parse_preserve(preserve)
    for path in (source, output):
        if not path.exists():
            raise usage_error(f"{path}: there is no such file or folder; check the path")
    if source.is_dir() != output.is_dir():
        raise usage_error("SOURCE and OUTPUT: must be two files or two folders")
    quiet()
    from ..clinical.verification import PairVerifier  # imports torch and diffusers: not for --help

    pairs, given = _pairs(source, output, boxes)
    try:
        verifier = PairVerifier(model, device, signs)
    except (OSError, ValueError, RuntimeError) as error:
        raise usage_error(f"--model {model} --device {device}: {error}") from error
    thresholds = {recognizer.name: recognizer.match_threshold for recognizer in verifier.pipeline.recognizers}
    table = Table("photo", "face", "likeness (limit)", "signs before and after", "result")
    counts = {"passed": 0, "failed": 0, "unusable": 0, "missing": 0}
    with progress_bar() as progress:
        for pair in progress.track(pairs, description="Verifying"):
            report = verifier.run(pair, given.get(pair.name))
            counts[report.status] += 1
            _add_rows(table, pair.name, report, thresholds)
            for reason in report.reasons:
                say(progress.console, f"[bold red]{report.status}:[/]", f"{pair.name}: {reason}")
            for note in report.notes:
                say(progress.console, "[bold yellow]note:[/]", f"{pair.name}: a candidate for a face was left: {note}")
    Console().print(table)
    checked = len(pairs) - counts["missing"]
    print(f"{counts['passed']} of {checked} pairs passed")
    if counts["missing"]:
        say(errors, "[bold yellow]note:[/]", f"of {counts['missing']} sources there is no result")
    if not checked:
        raise usage_error(f"{output}: holds no result of a photo in {source}; give the folder that medeid deid wrote")
    if counts["passed"] < checked:
        raise typer.Exit(NOT_ALL_USED)


def _pairs(source: Path, output: Path, boxes: Path | None) -> tuple[list[Pair], dict[str, list]]:
    """The pairs, and the user's own faces by what a source is called."""
    from ..clinical.sources import name_results
    from ..clinical.verification import Pair, pair_folders

    if not source.is_dir():
        return [Pair(source.name, source, output)], read_boxes(boxes, [source.name])
    sources = list_sources([source], recursive=True, out=output)
    names = dict(zip(sources, name_results(list(sources), "keep"), strict=True))
    return list(pair_folders(names, sources, output)), read_boxes(boxes, sources)


def _add_rows(table: Table, name: str, report: PairReport, thresholds: dict[str, float]) -> None:
    if not report.faces:
        table.add_row(escape(name), "", "", "", report.status)
    for number, face in enumerate(report.faces, start=1):
        likeness = [f"{each} {face.similarity[each]['after']:.2f} ({limit:.2f})" for each, limit in thresholds.items()]
        signs = [
            f"{sign.label} {sign.probability['before']:.0%} {sign.probability['after']:.0%}"
            for sign in face.manifestations
        ]
        result = "failed" if face.attempts[-1].failed else "passed"
        where = f"{number} (frame {report.frames[number - 1]})" if report.frames else str(number)
        table.add_row(escape(name), where, "\n".join(likeness), "\n".join(signs), result)
