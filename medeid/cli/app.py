"""The application that the commands belong to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
import typer.core

from .. import __version__
from .console import USAGE


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
