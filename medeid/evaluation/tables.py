"""What `medeid.evaluation.manifestations` measured, as tables on a terminal."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.table import Table


def print_tables(figures: dict[str, Any], console: Console) -> None:
    """Shows what `measure` returned."""
    values = figures["scores"]
    overall = _table(f"{figures['faces']} faces of {figures['subjects']} subjects", "measure", "value")
    for name in ("macro_f1", "dice_appearance", "severity_error", "calibration_error"):
        overall.add_row(name.replace("_", " "), _shown(values[name]))
    overall.add_row(f"share of {values['healthy']} healthy faces claimed", _shown(values["healthy_claimed"]))
    overall.add_row("milliseconds a crop", f"{figures['milliseconds_a_crop']:.0f}")
    overall.add_row("calibrated", figures["calibrated"])
    console.print(overall)
    signs = _table("Signs, the worst first", "label", "faces", "F1")
    told = {label: row for label, row in values["f1"].items() if not math.isnan(row["f1"])}
    for label, row in sorted(told.items(), key=lambda item: item[1]["f1"]):
        signs.add_row(label, str(row["faces"]), _shown(row["f1"]))
    console.print(signs)
    groups = _table("Fairness", "", "", "faces", "macro F1")
    for name, members in figures["by_group"].items():
        for member, row in members.items():
            groups.add_row(name.replace("_", " "), member, str(row["faces"]), _shown(row["macro_f1"]))
    console.print(groups)
    identity = _table("Who is it? Rank 1 on unseen faces", "features", "linear", "MLP", "chance")
    for name, row in figures["identity"].items():
        identity.add_row(name, *(_shown(row[column]) for column in ("linear", "mlp", "chance")))
    console.print(identity)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column)
    return table


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
