"""`medeid audit verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .console import NOT_ALL_USED, errors, say, usage_error
from .keys import given_key

audit = typer.Typer(help="Check the log of what was done.", no_args_is_help=True)
app.add_typer(audit, name="audit")


@audit.callback()
def _group() -> None:
    """Keeps `verify` a command of its own while there is no other."""


@audit.command()
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An audit log; it is only read.", show_default=False)],
    key_file: Annotated[
        Path | None,
        typer.Option(help="The key that the log was written under. Without it MEDEID_KEY is read."),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(metavar="DIGEST", help="A digest that you noted of this log: it must still be in it."),
    ] = None,
) -> None:
    """Check that no record of an audit log was edited, removed, put in or moved, and that its end is there.

    Names the first line with a fault. Without the key, a log that was made anew by
    somebody passes. Of a log that passes the last digest is printed: noted
    elsewhere, it tells by --head later on whether the log was cut or replaced.

    Exit status: 0 the log is intact, 2 it is not, 1 wrong usage.

    Example: medeid audit verify audit.jsonl --key-file study.key
    """
    from ..clinical.audit import verify_log

    key = given_key(key_file)
    try:
        report = verify_log(file, key, head)
    except OSError as error:
        raise usage_error(f"{file}: cannot be read ({error.strerror}); check the path") from error
    for note in report.notes:
        say(errors, "[bold yellow]note:[/]", f"{file}: {note}")
    if not report.intact:
        say(errors, "[bold red]fault:[/]", f"{file}: line {report.line}: {report.fault}")
        raise typer.Exit(NOT_ALL_USED)
    print(f"intact: {report.records} records of {report.runs} runs; the last digest is {report.head}")
