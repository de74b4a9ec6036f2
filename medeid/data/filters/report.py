"""What the filters found: a table, a page to read, histograms, and lists to go on with."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from .limits import Limit
from .rows import Face

_DUPLICATE = "duplicate"
_DUPLICATE_BASIS = (
    "Absolute. By the mean colours of 32 x 32 cells: no cell differs by more than 16 levels of 255 between subjects, "
    "or by more than 3 between pictures of one subject with the same labels. With other labels a small sign may be the "
    "whole difference, and only equal pixels count. The later one is flagged."
)


@dataclass
class ReportRow:
    """One picture.

    Attributes:
        file_name (`str`): Relative to the data set.
        skin_tone (`str`): Name of the band, empty if unknown.
        signs (`tuple[str, ...]`): Its manifestations.
        measures (`dict[str, float]`): Of several findings the one that is nearest to the limit or beyond.
        reasons (`list[str]`): Why it is flagged; empty if it is kept.
    """

    file_name: str
    skin_tone: str
    signs: tuple[str, ...]
    measures: dict[str, float] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, face: Face) -> ReportRow:
        return cls(face.file_name, face.skin_tone, tuple(finding.manifestation for finding in face.findings))

    def add(self, limit: Limit, value: float, what: str = "") -> None:
        """Notes a value and judges it."""
        if not math.isnan(value):
            worse = min if math.isfinite(limit.low) else max
            self.measures[limit.measure] = worse(value, self.measures.get(limit.measure, value))
        self.reasons += limit.judge(value, what)


@dataclass(frozen=True)
class FilterReport:
    """What [`run_filters`] found.

    Attributes:
        rows (`list[ReportRow]`): Every picture that could be read, in the order of the data set.
        limits (`list[Limit]`): What was judged by.
        not_run (`list[str]`): What was not judged, and why.
        unreadable (`list[str]`): Rows that could not be read, and why.
        unusable_originals (`list[str]`): Originals that nothing was compared with, and why.
    """

    rows: list[ReportRow]
    limits: list[Limit]
    not_run: list[str]
    unreadable: list[str]
    unusable_originals: list[str]

    @property
    def kept(self) -> list[str]:
        return [row.file_name for row in self.rows if not row.reasons]

    @property
    def flagged(self) -> list[ReportRow]:
        return [row for row in self.rows if row.reasons]

    @property
    def table(self) -> pa.Table:
        """A row a picture: `file_name`, a float column a measure (null: not measured), `reasons` (list of strings)."""
        columns: dict[str, pa.Array] = {"file_name": pa.array([row.file_name for row in self.rows], pa.string())}
        for limit in self.limits:
            values = [row.measures.get(limit.measure) for row in self.rows]
            columns[limit.measure] = pa.array(values, pa.float32())
        columns["reasons"] = pa.array([row.reasons for row in self.rows], pa.list_(pa.string()))
        return pa.table(columns)

    def save(self, folder: str | Path) -> None:
        """Writes report.md, histograms.png, measures.csv, flagged.csv and kept.txt; older ones are replaced.

        Raises:
            `ImportError`: if matplotlib is not installed; the others are written before.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        texts = self.table.set_column(
            self.table.num_columns - 1, "reasons", pa.array(["; ".join(row.reasons) for row in self.rows], pa.string())
        )
        flagged = texts.filter(pa.array([bool(row.reasons) for row in self.rows], pa.bool_()))
        kept = "".join(f"{name}\n" for name in self.kept)
        _replace(folder / "kept.txt", lambda path: path.write_text(kept, "utf-8"))
        _replace(folder / "measures.csv", lambda path: pa.csv.write_csv(texts, path))
        _replace(folder / "flagged.csv", lambda path: pa.csv.write_csv(flagged, path))
        _replace(folder / "report.md", lambda path: path.write_text(self.page(), "utf-8"))
        _replace(folder / "histograms.png", self._draw_histograms)

    def counts(self) -> dict[str, int]:
        """Pictures flagged for each reason; a picture may be flagged for several."""
        said = Counter(reason for row in self.rows for reason in {text.split(":")[0] for text in row.reasons})
        known = [*(limit.reason for limit in self.limits), _DUPLICATE]
        return {reason: said[reason] for reason in known}

    def page(self) -> str:
        """The report as Markdown."""
        flagged = len(self.flagged)
        counts = self.counts()
        limits = [
            (limit.reason, f"`{limit.measure}` {limit.text}", counts[limit.reason], self._share(limit), limit.basis)
            for limit in self.limits
            if any(limit.measure in row.measures for row in self.rows)
        ]
        lines = [
            "# Filter report",
            "",
            f"{len(self.rows)} pictures read, {flagged} flagged ({_percent(flagged, len(self.rows))}), "
            f"{len(self.rows) - flagged} kept; {len(self.unreadable)} rows could not be read.",
            "",
            "## Checks",
            "",
            *_table(
                ("Reason", "Kept if", "Flagged", "Share", "Where the limit comes from"),
                [*limits, (_DUPLICATE, "none before it", counts[_DUPLICATE], self._share(None), _DUPLICATE_BASIS)],
            ),
            *_listing("Not run", self.not_run),
            *_listing("Rows that could not be read", self.unreadable),
            *_listing("Originals that nothing was compared with", self._count_of_unusable()),
            *self._shares("Flagged by sign", lambda row: row.signs or ("none (healthy)",)),
            *self._shares("Flagged by skin tone", lambda row: (row.skin_tone or "not given",)),
        ]
        return "\n".join(lines) + "\n"

    def _count_of_unusable(self) -> list[str]:
        """Without names: a file is often called as its patient is, and the report may go where the data set goes."""
        number = len(self.unusable_originals)
        return [f"{number} files; `medeid filter` names them in the terminal."] if number else []

    def _share(self, limit: Limit | None) -> str:
        """Flagged, as a share of the pictures that were judged."""
        reason = limit.reason if limit else _DUPLICATE
        judged = sum(limit is None or limit.measure in row.measures for row in self.rows)
        return _percent(self.counts()[reason], judged)

    def _shares(self, title: str, keys: Callable[[ReportRow], Sequence[str]]) -> list[str]:
        """A table of how many of each kind are flagged: filters that take more of one kind skew a set."""
        total = Counter(key for row in self.rows for key in set(keys(row)))
        flagged = Counter(key for row in self.flagged for key in set(keys(row)))
        entries = [(key, total[key], flagged[key], _percent(flagged[key], total[key])) for key in sorted(total)]
        return [
            "",
            f"## {title}",
            "",
            *_table((title.split()[-1].capitalize(), "Pictures", "Flagged", "Share"), entries),
        ]

    def _draw_histograms(self, path: Path) -> None:
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("The histograms need matplotlib: install `medeid[report]`.") from error
        shown = [limit for limit in self.limits if any(limit.measure in row.measures for row in self.rows)]
        columns = 3
        rows = max(1, math.ceil(len(shown) / columns))
        figure = Figure(figsize=(4.0 * columns, 2.6 * rows))
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        figure.subplots_adjust(left=0.04, right=0.98, top=1 - 0.3 / rows, bottom=0.3 / rows, hspace=0.4, wspace=0.2)
        for axis, limit in zip(axes, shown, strict=False):
            values = [row.measures[limit.measure] for row in self.rows if limit.measure in row.measures]
            axis.stairs(*np.histogram(values, bins=60), fill=True, color="0.6")
            axis.set_yscale("symlog")
            for bound in (limit.low, limit.high):
                if math.isfinite(bound):
                    axis.axvline(bound, color="tab:red")
            axis.set_title(f"{limit.measure}: {limit.text}", fontsize=9)
        for axis in axes[len(shown) :]:
            axis.set_axis_off()
        figure.savefig(path, dpi=100, format="png")


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(f".partial-{path.name}")
    write(partial)
    os.replace(partial, path)


def _percent(count: int, total: int) -> str:
    return f"{100 * count / total:.1f} %" if total else "-"


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    cells = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(str(cell) for cell in row)} |" for row in cells]


def _listing(title: str, entries: Sequence[str]) -> list[str]:
    return ["", f"## {title}", "", *(f"- {entry}" for entry in entries)] if entries else []
