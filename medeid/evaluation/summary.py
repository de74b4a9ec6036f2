"""The main figures of a benchmark, row by row, and as a table on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """A figure that all methods have.

    Attributes:
        title (`str`): What it is.
        path (`tuple[str, ...]`): Where it is in a method's figures.
        shown (`Callable`): Its text.
    """

    title: str
    path: tuple[str, ...]
    shown: Callable[[Any], str]

    def text(self, figures: Mapping[str, Any]) -> str:
        """The figure of a method as text; a dash where there is none."""
        value = look_up(figures, self.path)
        return "-" if value is None else self.shown(value)

    def chance(self, figures: Mapping[str, Any]) -> float | None:
        """What luck gives, where that is known."""
        value = look_up(figures, self.path)
        return value.get("chance") if isinstance(value, Mapping) else None


def look_up(figures: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """What lies at a path; None where it ends early."""
    value: Any = figures
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def rate(value: Mapping[str, float]) -> str:
    """A share in percent with its interval: `"12.0 % (8.1-17.3)"`."""
    low, high = (f"{100 * value[end]:.1f}" for end in ("low", "high"))
    return f"{share(value['value'])} ({low}-{high})"


def share(value: float) -> str:
    return f"{100 * value:.1f} %"


def number(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}"  # adding 0 takes the sign from -0


SECONDS = Row("seconds a photo", ("seconds_a_photo",), number)  # of what is in timing.json


def main_rows(results: Mapping[str, Any]) -> list[Row]:
    """The rows of a benchmark's main table; of some there is one for each recognizer or reader of signs."""
    rows = [Row(f"photos {status}", ("photos", status), str) for status in ("released", "withheld", "failed")]
    for recognizer in results["settings"]["recognizers"]:
        rows += _privacy_rows(recognizer, results["settings"]["false_accept_rate"])
    rows += [
        Row("named by the landmarks alone, at rank 1", ("landmarks", "rank1"), rate),
        Row("... visits linked under two keys", ("landmarks", "linked_two_keys"), rate),
    ]
    for encoder in results["settings"]["encoders"]:
        rows += _sign_rows(encoder)
    geometry, quality = ("utility", "geometry"), ("quality",)
    rows += [
        Row("regions with signs, learned from the results: AUROC", ("utility", "downstream", "auroc"), rate),
        Row("lid aperture, error / inter-ocular distance", (*geometry, "lid_aperture"), number),
        Row("margin-reflex distance, error / same", (*geometry, "margin_reflex_distance"), number),
        Row("corners of the mouth, error / same", (*geometry, "mouth_corner_asymmetry"), number),
        Row("gaze, error / same", (*geometry, "iris_offset"), number),
        Row("colour in signs, CIEDE2000", ("utility", "colour_change"), number),
        Row("kernel distance to photos of others", (*quality, "kernel_distance"), number),
        Row("Frechet distance to photos of others", (*quality, "frechet_distance"), number),
        Row("kernel distance in the features of CLIP", (*quality, "clip", "kernel_distance"), number),
        Row("seam visibility", (*quality, "seam_visibility"), number),
        Row("pixels changed outside", (*quality, "pixels_changed_outside"), str),
        Row("SSIM outside", (*quality, "ssim_outside"), number),
        Row("a face is found", (*quality, "face_found"), share),
    ]
    return rows


def _privacy_rows(recognizer: str, far: float) -> list[Row]:
    face, crop = (("privacy", recognizer, where) for where in ("face_only", "whole_crop"))
    return [
        Row(f"re-identified at rank 1 by {recognizer}, face alone", (*face, "worst_rank1"), rate),
        Row("... by the nearest original", (*face, "rank1"), rate),
        Row("... by the adaptive attacker", (*face, "attacker_rank1"), rate),
        Row("... at rank 5", (*face, "rank5"), rate),
        Row("... at rank 1, whole crop", (*crop, "worst_rank1"), rate),
        Row(f"verified at FAR {share(far)}, face alone", (*face, "verified"), rate),
        Row("... whole crop", (*crop, "verified"), rate),
        Row("visits linked under one key, face alone", (*face, "linked_one_key"), rate),
        Row("... under two keys", (*face, "linked_two_keys"), rate),
        Row("... under two keys, whole crop", (*crop, "linked_two_keys"), rate),
        Row("recovered of the source, cosine beyond luck", (*face, "recovery", "difference"), number),
        Row("diversity of surrogates", (*face, "diversity", "diversity"), number),
    ]


def _sign_rows(encoder: str) -> list[Row]:
    signs = ("utility", "signs", encoder)
    return [
        Row(f"signs before and after, kappa by {encoder}", (*signs, "kappa"), number),
        Row("... accuracy", (*signs, "accuracy"), share),
        Row("... lost", (*signs, "lost"), share),
        Row("... new ones a face", (*signs, "new"), number),
        Row("... severity error", (*signs, "severity_error"), number),
        Row("... Dice of the masks", (*signs, "dice"), number),
    ]


def chance_text(row: Row, methods: Mapping[str, Any]) -> str:
    """What luck gives, in percent; from the least to the most where methods differ in what was released."""
    chances = [chance for figures in methods.values() if (chance := row.chance(figures)) is not None]
    if not chances:
        return ""
    low, high = (f"{100 * end:.1f}" for end in (min(chances), max(chances)))
    return f"{low} %" if low == high else f"{low}-{high} %"


def print_table(results: Mapping[str, Any], timing: Mapping[str, Any], console: Console) -> None:
    """Shows the main figures of a benchmark, a column for each method."""
    methods = results["methods"]
    title = f"{results['patients']} patients of {results['cohort']['subjects']} people, seed {results['seed']}"
    table = Table("figure", "luck", *methods, title=title, title_justify="left")
    for row in main_rows(results):
        cells = [row.text(figures) for figures in methods.values()]
        if any(cell != "-" for cell in cells):
            table.add_row(row.title, chance_text(row, methods), *cells)
    table.add_row(SECONDS.title, "", *(SECONDS.text(timing[name]) for name in methods))
    console.print(table)
    for name, figures in methods.items():
        for reason, count in figures["failures"].items():
            console.print(f"{name} failed on {count} photos: {reason}", markup=False, highlight=False, soft_wrap=True)
