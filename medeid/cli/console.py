"""What all commands say, and how."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

USAGE, NOT_ALL_RELEASED, NOT_ALL_USED = 1, 2, 2

errors = Console(stderr=True)


def say(to: Console, label: str, message: str) -> None:
    """Prints a message as it is: a file's name may hold brackets, which rich would take for markup."""
    to.print(f"{label} {escape(message)}", highlight=False, soft_wrap=True)


def usage_error(message: str) -> typer.Exit:
    say(errors, "[bold red]error:[/]", message)
    return typer.Exit(USAGE)


def prepare_output(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".partial-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise usage_error(f"-o {out}: cannot be written to ({error.strerror}); choose another folder") from error


def num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def progress_bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=errors, transient=True)


def stages(progress: Progress) -> Callable[[str, int, int], None]:
    """Shows work that tells what it is doing, how much of it is done, and of how much."""
    tasks: dict[str, TaskID] = {}

    def advance(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = progress.add_task(stage)
        progress.update(tasks[stage], completed=done, total=total)

    return advance


def quiet() -> None:
    """Keeps the libraries' own bars and warnings out of the output."""
    from diffusers.utils import logging as diffusers_logging

    warnings.filterwarnings("ignore")
    logging.getLogger().setLevel(logging.ERROR)
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
