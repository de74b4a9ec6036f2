"""The figures of `benchmark_speed.py` as tables in Markdown and as a picture."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from medeid.files import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NETWORKS, OWN = "tab:blue", "tab:orange"
WIDTH = 140  # columns; a table in Markdown must not be wrapped

Rows = list[Sequence[str]]


def stages_table(stages: dict[str, Any]) -> tuple[Sequence[str], Rows]:
    parts = stages["stages"]
    total = sum(sum(each.values()) for each in parts.values())
    rows: Rows = [
        (
            name,
            *(f"{1000 * value:.0f}" for value in (each["networks"], each["own"])),
            f"{sum(each.values()) / total:.1%}",
        )
        for name, each in parts.items()
    ]
    sums = [sum(each[part] for each in parts.values()) for part in ("networks", "own")]
    rows.append(("all", *(f"{1000 * value:.0f}" for value in sums), "100%"))
    rows.append(("share", *(f"{value / total:.1%}" for value in sums), ""))
    return ("stage", "in networks, ms", "outside, ms", "of all"), rows


def tools_table(tools: dict[str, Any]) -> tuple[Sequence[str], Rows]:
    return ("tool", "ms a photo"), [
        (name, f"{1000 * tool['seconds']:.0f}" if "seconds" in tool else f"not measured: {tool['left_out']}")
        for name, tool in tools.items()
    ]


def faces_table(faces: list[dict[str, float]]) -> tuple[Sequence[str], Rows]:
    ways = ("calls", "one_call", "one_photo")
    columns = (
        "faces",
        "a call each, s",
        "one call, s",
        "one photo, s",
        "one call / calls",
        "one photo / calls",
    )
    return columns, [
        (
            str(row["faces"]),
            *(f"{row[way]:.2f}" for way in ways),
            *(f"{row[way] / row['calls']:.2f}" for way in ways[1:]),
        )
        for row in faces
    ]


def pixels_table(pixels: list[dict[str, float]]) -> tuple[Sequence[str], Rows]:
    return ("side, px", "s", "outside of networks, s", "tries"), [
        (str(row["side"]), f"{row['seconds']:.2f}", f"{row['own']:.2f}", f"{row['tries']:g}") for row in pixels
    ]


def folder_table(folder: dict[str, Any]) -> tuple[Sequence[str], Rows]:
    rows: Rows = []
    for name, row in folder.items():
        if "left_out" in row:
            rows.append((name, f"not measured: {row['left_out']}", "", "", ""))
            continue
        same, differs = f"{row['same_files']} of {row['files']}", str(row["largest_difference"])
        rows.append((name, f"{row['seconds']:.1f}", f"{row['seconds'] / row['files']:.2f}", same, differs))
    return ("medeid deid", "s", "s a photo", "same bytes", "largest difference, of 255"), rows


def imports_table(imports: dict[str, Any]) -> tuple[Sequence[str], Rows]:
    return ("import", "s", "networks loaded"), [
        (name, f"{row['seconds']:.2f}", str(row["networks"])) for name, row in imports.items()
    ]


def bars_table(bars: list[dict[str, Any]]) -> tuple[Sequence[str], Rows]:
    return ("what", "value", "at most", "met"), [
        (bar["what"], f"{bar['value']:.3g}", f"{bar['bar']:g}", "yes" if bar["met"] else "no") for bar in bars
    ]


TABLES: dict[str, tuple[str, Callable[[Any], tuple[Sequence[str], Rows]]]] = {
    "stages": ("Where the time of a photo goes", stages_table),
    "tools": ("Beside tools that cover faces", tools_table),
    "faces": ("Faces in a call", faces_table),
    "pixels": ("Pixels of a photo with one face", pixels_table),
    "folder": ("A folder, start included", folder_table),
    "import": ("Imports", imports_table),
    "bars": ("What was to be reached", bars_table),
}


def print_tables(figures: dict[str, Any]) -> None:
    """Prints the tables of what was measured, in Markdown."""
    console = Console(width=WIDTH, highlight=False)
    machine = ", ".join(f"{name}: {figures[name]}" for name in ("medeid", "torch", "cores", "threads"))
    console.print(machine)
    for section, (title, make) in TABLES.items():
        if not figures.get(section):
            continue
        columns, rows = make(figures[section])
        table = Table(box=box.MARKDOWN)
        for number, column in enumerate(columns):
            table.add_column(column, justify="right" if number else "left")
        for row in rows:
            table.add_row(*row)
        console.print(f"\n{title}", style="bold")
        console.print(table)


def draw(figures: dict[str, Any], path: Path) -> None:
    """Draws what was measured of stages, tools, faces and pixels into a PNG, by matplotlib."""
    from matplotlib.figure import Figure

    panels = {name: panel for name, panel in PANELS.items() if name in figures}
    figure = Figure(figsize=(10, 3.4 * -(-len(panels) // 2)), layout="constrained")
    for number, (name, panel) in enumerate(panels.items(), start=1):
        panel(figure.add_subplot(-(-len(panels) // 2), min(len(panels), 2), number), figures[name])
    coded = io.BytesIO()
    figure.savefig(coded, format="png", dpi=90)
    write_file(path, coded.getvalue())


def draw_stages(axes: Axes, stages: dict[str, Any]) -> None:
    names = list(stages["stages"])[::-1]
    networks, own = ([1000 * stages["stages"][name][part] for name in names] for part in ("networks", "own"))
    axes.barh(names, networks, color=NETWORKS, label="in networks")
    axes.barh(names, own, left=networks, color=OWN, label="outside of them")
    axes.set(title="Where the time of a photo goes", xlabel="ms")
    axes.legend()


def draw_tools(axes: Axes, tools: dict[str, Any]) -> None:
    measured = {name: tool["seconds"] for name, tool in tools.items() if "seconds" in tool}
    shown = axes.barh(list(measured)[::-1], list(measured.values())[::-1], color=NETWORKS)
    axes.bar_label(shown, fmt=" %.2f s")
    axes.set(title="Beside tools that cover faces", xlabel="s a photo")
    axes.margins(x=0.2)


def draw_faces(axes: Axes, faces: list[dict[str, float]]) -> None:
    counts = [row["faces"] for row in faces]
    for way, label in (("calls", "a call each"), ("one_call", "one call"), ("one_photo", "one photo of all")):
        axes.plot(counts, [row[way] / row["faces"] for row in faces], "o-", label=label)
    axes.set(title="Faces in a call", xlabel="faces", ylabel="s a face", xticks=counts)
    axes.set_ylim(bottom=0)
    axes.legend()


def draw_pixels(axes: Axes, pixels: list[dict[str, float]]) -> None:
    sides = [row["side"] for row in pixels]
    for part, label, colour in (("seconds", "all", NETWORKS), ("own", "outside of networks", OWN)):
        axes.plot(sides, [row[part] for row in pixels], "o-", label=label, color=colour)
    axes.set(title="Pixels of a photo with one face", xlabel="side, px", ylabel="s", xticks=sides)
    axes.set_ylim(bottom=0)
    axes.legend()


PANELS: dict[str, Callable[[Axes, Any], None]] = {
    "stages": draw_stages,
    "tools": draw_tools,
    "faces": draw_faces,
    "pixels": draw_pixels,
}
