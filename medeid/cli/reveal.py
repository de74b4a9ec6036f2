"""`medeid reveal`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .console import NOT_ALL_USED, errors, say, usage_error
from .keys import given_opening_key


@app.command()
def reveal(
    output: Annotated[
        Path, typer.Argument(metavar="OUT_FILE", help="A released file, as it was written.", show_default=False)
    ],
    vault: Annotated[Path, typer.Option(help="The vault of its run; it is only read.", show_default=False)],
    restored: Annotated[Path, typer.Option("-o", "--out", help="A new file for the source.", show_default=False)],
    key_file: Annotated[
        Path | None,
        typer.Option(
            help="The key that the vault was made with, or the secret half of a recipient's pair. Without it "
            "MEDEID_KEY is read."
        ),
    ] = None,
) -> None:
    """Restore the source of OUT_FILE from a vault, bit for bit, into a file that you alone can read.

    What is restored shows the patient. With a wrong key, the vault of another run, or
    where anything was changed, nothing is written.

    Exit status: 0 the source was restored, 2 it was not, 1 wrong usage.

    Example: medeid reveal out/photo.png --vault study.vault --key-file study.key -o photo.jpg
    """
    from ..clinical.vault import VaultError, restore

    if restored.exists():
        raise usage_error(f"-o {restored}: exists, and nothing is overwritten; choose another name")
    key = given_opening_key(key_file)
    try:
        restore(vault, output, key, restored)
    except VaultError as error:
        say(errors, "[bold red]not restored:[/]", str(error))
        raise typer.Exit(NOT_ALL_USED) from error
    print(f"the source is in {restored}")
