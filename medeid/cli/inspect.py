"""`medeid inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .app import app
from .console import NOT_ALL_USED, errors, prepare_output, quiet, say, usage_error
from .options import Boxes, Device, Model, Recursive, list_sources, read_boxes


@app.command()
def inspect(
    photos: Annotated[
        list[Path],
        typer.Argument(
            metavar="PHOTO...", help="Photos to look at, or folders; they are only read.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the pictures.")] = Path("signs"),
    model: Model = "medeid-tiny",
    recursive: Recursive = False,
    device: Device = "cpu",
    boxes: Boxes = None,
) -> None:
    """Show which signs of disease medeid reads on the faces in each PHOTO.

    Prints sign, side (the patient's own), probability, severity and region, and
    writes OUT/NAME.signs.png, the photo with the signs' masks and a legend.
    These pictures show the patient: they are as sensitive as the photos.

    Exit status: 0 every photo was read, 2 at least one could not be used or has no face, 1 wrong usage.

    Example: medeid inspect photo.jpg -o signs/
    """
    quiet()
    from ..clinical.inspection import Inspector
    from ..clinical.sources import name_results

    sources = list_sources(photos, recursive, out)
    given = read_boxes(boxes, sources)
    prepare_output(out)

    try:
        inspector = Inspector(model, device)
    except (OSError, ValueError, RuntimeError) as error:
        raise usage_error(f"--model {model} --device {device}: {error}") from error
    failures = 0
    for (called, photo), name in zip(sources.items(), name_results(list(sources), "keep"), strict=True):
        target = out / f"{name}.signs.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            faces = inspector.run(photo, target, given.get(called))
        except ValueError as error:
            failures += 1
            say(errors, "[bold red]not read:[/]", f"{photo}: {error}")
            continue
        Console().print(_signs_table(called, faces))
    if failures:
        raise typer.Exit(NOT_ALL_USED)


def _signs_table(title: str, faces: list[Any]) -> Table:
    table = Table(
        "face", "sign", "side", "probability", "severity", "region", title=escape(title), title_justify="left"
    )
    for number, face in enumerate(faces, start=1):
        if not face.readings:
            table.add_row(str(number), "no sign found")
        for reading in face.readings:
            row = reading.row
            table.add_row(
                str(number),
                row.title,
                reading.side if row.lateral else "",
                f"{reading.probability:.0%}",
                f"{reading.severity:.1f}",
                row.region.replace("_", " "),
            )
    return table
