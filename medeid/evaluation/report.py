"""A benchmark as one page: tables, a plot of privacy against utility, and the worst photos before and after."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ..data.build import Plan
from ..files import write_file
from .cohort import PATIENTS, SPLIT
from .summary import SECONDS, chance_text, main_rows, number, rate

_PICTURE = 144  # px
_QUALITY = 85
_PLOT = (720, 400)  # px
_MARGIN = (60, 24, 200, 48)  # px: left, top, right (for the names), bottom
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")

_STYLE = """
body { font: 15px/1.45 sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; display: block; overflow-x: auto; }
th, td { padding: .25em .7em; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid #888; }
figure { display: inline-block; margin: .3em; }
figure img { display: inline-block; width: 144px; height: 144px; }
figcaption { font-size: 12px; color: #555; }
"""

_NOT_SAID = """
<p>The patients are simulated: signs of disease painted on faces of nobody. How a method does on photos of patients is
not known from this. A rate is that of the recognizers named here; others, and people who know the patient, may see
more. Hair, ears, clothes and places were not attacked, other than by what a recognizer sees of them in the whole
crop. The adaptive attacker had a few hundred pairs at most; with many more he may find more. All rates are of
photos that were released, so a method that withholds the difficult ones looks better on the rest: look at how many
those were. The gallery holds each patient's very photo, which few attackers have; it is small, and in a larger one
luck and rates are lower. This package's own method asks the encoder medeid and the recognizers before it releases a
photo, so by them its figures are flattered; by a judge they are not. Kappa of a sign that few faces show rests on
those few. Nothing here is a legal guarantee, or says anything of a single photo.</p>
"""


def write_report(out: Path, results: Mapping[str, Any], timing: Mapping[str, Any]) -> None:
    """Writes `report.html`, which needs no other file.

    Args:
        out (`Path`):
            Folder of the benchmark, with its pictures.
        results, timing (`dict`):
            What is in `results.json` and `timing.json`.
    """
    methods, cohort = results["methods"], results["cohort"]
    measured = {name: figures for name, figures in methods.items() if "privacy" in figures}
    gallery = cohort["gallery"]
    parts = [
        "<h1>De-identification of medical photos, measured</h1>",
        f"<p>{results['patients']} simulated patients of {cohort['subjects']} people, {cohort['healthy']} of them "
        f"healthy; a gallery of {gallery['photos']} photos of {gallery['subjects']} people; seed {results['seed']}, "
        f"medeid {html.escape(results['medeid'])}, faces {results['faces']}, model {results['model']}.</p>",
        "<h2>All methods</h2>",
        "<p>In brackets the 95 % interval, by bootstrap over people. Luck is what naming blindly comes to.</p>",
        _main_table(results, timing),
        _failures(methods),
        "<h2>Privacy against utility</h2>",
        "<p>The better, the lower and the further to the right.</p>",
        _plot(results, measured),
        "<h2>Attack by attack</h2>",
        _attack_table(measured),
        "<h2>Sign by sign</h2>",
        *(_sign_table(encoder, measured) for encoder in results["settings"]["encoders"]),
        "<h2>What can be learned</h2>",
        "<p>AUROC on originals of other people, by a classifier trained on originals or on a method's results. Luck "
        "gives 0.5.</p>",
        _downstream_table(measured),
        "<h2>Group by group</h2>",
        _group_table(measured),
        "<h2>The worst photos</h2>",
        *(_grids(out, name, figures["worst"]) for name, figures in measured.items()),
        "<h2>What this does not say</h2>",
        _NOT_SAID,
    ]
    head = f'<meta charset="utf-8"><title>medeid benchmark</title><style>{_STYLE}</style>'
    page = f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(parts) + "\n</body></html>\n"
    write_file(out / "report.html", page.encode())


def _table(columns: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "\n".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"


def _main_table(results: Mapping[str, Any], timing: Mapping[str, Any]) -> str:
    methods = results["methods"]
    rows = [
        (row.title, chance_text(row, methods), *(row.text(figures) for figures in methods.values()))
        for row in main_rows(results)
    ]
    rows.append((SECONDS.title, "", *(SECONDS.text(timing[name]) for name in methods)))
    return _table(("figure", "luck", *methods), rows)


def _failures(methods: Mapping[str, Any]) -> str:
    told = [
        f"<li>{html.escape(name)} failed on {count} photos: {html.escape(reason)}</li>"
        for name, figures in methods.items()
        for reason, count in figures["failures"].items()
    ]
    return f"<ul>{''.join(told)}</ul>" if told else ""


def _plot(results: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """Rank 1 by the stronger attacker, with its interval, over kappa of the last encoder: the judge if there is one."""
    recognizer, encoder = results["settings"]["recognizers"][0], results["settings"]["encoders"][-1]
    left, top, right, bottom = _MARGIN
    width, height = _PLOT[0] - left - right, _PLOT[1] - top - bottom

    def x(kappa: float) -> float:
        return left + width * min(max(kappa, 0.0), 1.0)

    def y(value: float) -> float:
        return top + height * (1.0 - value)

    marks = [f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#888"/>']
    for tick in _TICKS:
        marks.append(_label(x(tick), top + height + 18, f"{tick:g}", "middle"))
        marks.append(_label(left - 6, y(tick) + 4, f"{100 * tick:g} %", "end"))
    marks.append(_label(left + width / 2, _PLOT[1] - 8, f"kappa of signs by {encoder}", "middle"))
    marks.append(_label(left, top - 8, f"re-identified at rank 1 by {recognizer}, face alone; dashed: luck", "start"))
    found = {name: figures["privacy"][recognizer]["face_only"]["worst_rank1"] for name, figures in measured.items()}
    for luck in sorted({y(each["chance"]) for each in found.values()}):
        marks.append(_line(left, luck, left + width, luck, 'stroke="#999" stroke-dasharray="4"'))
    for place, (name, figures) in enumerate(measured.items()):
        kappa, colour = figures["utility"]["signs"][encoder]["kappa"], _COLOURS[place % len(_COLOURS)]
        marks.append(_dot(left + width + 16, top + 8 + 20 * place, colour))
        marks.append(_label(left + width + 26, top + 12 + 20 * place, name, "start"))
        if kappa is not None:
            interval = (y(found[name]["low"]), y(found[name]["high"]))
            marks.append(_line(x(kappa), interval[0], x(kappa), interval[1], f'stroke="{colour}" stroke-width="2"'))
            marks.append(_dot(x(kappa), y(found[name]["value"]), colour))
    return f'<svg width="{_PLOT[0]}" height="{_PLOT[1]}" font-size="12">\n' + "\n".join(marks) + "\n</svg>"


def _line(x0: float, y0: float, x1: float, y1: float, style: str) -> str:
    return f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" {style}/>'


def _dot(x: float, y: float, colour: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>'


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def _attack_table(measured: Mapping[str, Any]) -> str:
    names = ("rank1", "attacker_rank1", "rank5", "verified", "linked_one_key", "linked_two_keys")
    rows = []
    for method, figures in measured.items():
        for recognizer, crops in figures["privacy"].items():
            for crop, attack in crops.items():
                cells = [_rate_and_chance(attack[name]) for name in names]
                rows.append((method, recognizer, crop.replace("_", " "), *cells))
    columns = ("rank 1", "adaptive attacker", "rank 5", "verified", "linked, one key", "linked, two keys")
    return _table(("method", "recognizer", "sees", *columns), rows)


def _rate_and_chance(value: Mapping[str, float] | None) -> str:
    return "-" if value is None else f"{rate(value)}, luck {100 * value['chance']:.1f}"


def _sign_table(encoder: str, measured: Mapping[str, Any]) -> str:
    """Kappa of each label, with the number of faces that the encoder reads it on, of those that were released."""
    signs = {name: figures["utility"]["signs"][encoder]["by_label"] for name, figures in measured.items()}
    labels = dict.fromkeys(label for table in signs.values() for label in table)

    def cell(row: Mapping[str, Any] | None) -> str:
        return "-" if row is None else f"{_shown(row['kappa'])} of {row['faces']}"

    rows = [(label.replace("_", " "), *(cell(table.get(label)) for table in signs.values())) for label in labels]
    return _table((f"kappa by {encoder}, of faces with the sign", *signs), rows)


def _downstream_table(measured: Mapping[str, Any]) -> str:
    """AUROC by region of a classifier trained on originals, and on each method's results."""
    learned = {name: found for name, figures in measured.items() if (found := figures["utility"]["downstream"])}
    if not learned:
        return "<p>Too few photos show a sign.</p>"
    originals, *_ = learned.values()  # they are the same for all
    regions = [(region, row["photos"], row["auroc_originals"]) for region, row in originals["by_region"].items()]
    rows = [
        (region.replace("_", " "), str(photos), number(area))
        + tuple(number(found["by_region"][region]["auroc"]) for found in learned.values())
        for region, photos, area in regions
    ]
    mean = (rate(originals["auroc_originals"]), *(rate(found["auroc"]) for found in learned.values()))
    return _table(("a sign in", "photos", "trained on originals", *learned), [("mean, in %", "", *mean), *rows])


def _group_table(measured: Mapping[str, Any]) -> str:
    rows = []
    for method, figures in measured.items():
        for attribute, members in figures["by_group"].items():
            for member, values in members.items():
                cells = (str(values["photos"]), f"{100 * values['worst_rank1']:.1f} %", _shown(values["kappa"]))
                rows.append((method, attribute.replace("_", " "), member.replace("_", " "), *cells))
    return _table(("method", "", "", "photos", "re-identified at rank 1", "kappa"), rows)


def _shown(value: float | None) -> str:
    return "-" if value is None else number(value)


def _grids(out: Path, method: str, worst: Mapping[str, Any]) -> str:
    titles = {
        "similarity": ("most like their source", "similarity {:.3f}"),
        "changed_labels": ("signs changed most", "{:.0f} labels changed"),
    }
    parts = []
    for name, (title, caption) in titles.items():
        parts.append(f"<h3>{html.escape(method)}: {title}</h3>")
        parts += [_pair(out, method, each["patient"], caption.format(each["value"])) for each in worst[name]]
    return "\n".join(parts)


def _pair(out: Path, method: str, patient: int, caption: str) -> str:
    """A patient before and after."""
    before, after = out / PATIENTS / SPLIT / Plan.image(patient), out / method / "photos" / f"{patient:06d}.png"
    pictures = "".join(f'<img src="data:image/jpeg;base64,{_encoded(path)}" alt="">' for path in (before, after))
    return f"<figure>{pictures}<figcaption>patient {patient}: {caption}</figcaption></figure>"


def _encoded(path: Path) -> str:
    buffer = io.BytesIO()
    with Image.open(path) as image:
        small = image.convert("RGB").resize((_PICTURE, _PICTURE), Image.Resampling.LANCZOS)
    small.save(buffer, format="JPEG", quality=_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()
