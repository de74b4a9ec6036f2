"""The card of a simulated data set: how it was made, what is in it, and what it cannot show."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from .. import __version__
from ..faces.canvas import SkinTone
from ..manifestations.taxonomy import TAXONOMY, Finding, label_name
from .patients import SYNDROMES

if TYPE_CHECKING:
    from .build import BuildOptions

_SIZE_CATEGORIES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGEST_CATEGORY = "n>1M"
_NOT_STATED = "not stated"
_ORDER = {value: place for place, value in enumerate((*get_args(SkinTone), _NOT_STATED))}
_SEVERITY_BINS = 10
_BAR_LENGTH = 40
_TOP_PAIRS = 15


@dataclass
class Counts:
    """What is counted of a set.

    Attributes:
        images, healthy (`Counter`): By split.
        subjects (`dict`): The subjects of a split.
        labels (`Counter`): Images by (split, manifestation, single side).
        severities (`Counter`): Findings by tenth of the range.
        pairs (`Counter`): Images by two manifestations that they show together.
        balance (`dict`): Images by (value, sick or not) of `skin_tone`, `sex` and `group`.
    """

    images: Counter[str] = field(default_factory=Counter)
    healthy: Counter[str] = field(default_factory=Counter)
    subjects: dict[str, set[str]] = field(default_factory=dict)
    labels: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    severities: Counter[int] = field(default_factory=Counter)
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    balance: dict[str, Counter[tuple[str, bool]]] = field(
        default_factory=lambda: {"skin_tone": Counter(), "sex": Counter(), "group": Counter()}
    )

    def add(self, split: str, row: Mapping) -> None:
        findings = [Finding(**finding) for finding in row["findings"]]
        self.images[split] += 1
        self.healthy[split] += not findings
        self.subjects.setdefault(split, set()).add(row["subject_id"])
        for finding in findings:
            for side in finding.single_sides:
                self.labels[split, finding.manifestation, side] += 1
            # Severities are hundredths: 0.2 belongs to the bin that ends there, whatever its last bit is.
            self.severities[(round(100 * finding.severity) - 1) * _SEVERITY_BINS // 100] += 1
        self.pairs.update(combinations(sorted({finding.manifestation for finding in findings}), 2))
        for name, counter in self.balance.items():
            counter[row.get(name) or _NOT_STATED, bool(findings)] += 1


def write_card(root: Path, splits: Iterable[str], options: BuildOptions) -> str:
    """The card of a set as Markdown, with the YAML header of the Hugging Face Hub.

    Args:
        root (`Path`):
            Folder of the set, complete with metadata.
        splits (`Iterable[str]`):
            Its splits.
        options (`BuildOptions`):
            What it was made of.
    """
    counts = Counts()
    for split in splits:
        with open(root / split / "metadata.jsonl") as lines:
            for line in lines:
                counts.add(split, json.loads(line))
    sections = (_header(counts, options), _making(options), _columns(), _contents(counts), _balance(counts), _LIMITS)
    return "\n".join(sections)


def _header(counts: Counts, options: BuildOptions) -> str:
    total = counts.images.total()
    category = next((name for bound, name in _SIZE_CATEGORIES if total < bound), _LARGEST_CATEGORY)
    return f"""\
---
pretty_name: Simulated patients (medeid)
license: other
task_categories:
- image-classification
- image-segmentation
tags:
- medical
- face
- synthetic
- ophthalmology
- dermatology
size_categories:
- {category}
---

# Simulated patients

{total:,} face pictures of {options.size} px with simulated visible signs of disease: which signs, on which side, how
severe, a mask of each, and 478 landmarks. **Nothing in it is a clinical finding**: the signs were painted on source
faces by medeid {__version__}.
"""


def _making(options: BuildOptions) -> str:
    command = f"medeid simulate FACES -o OUT -n {options.count} --seed {options.seed}"
    if tuple(options.signs) != tuple(TAXONOMY):
        command += f" --signs {','.join(options.signs)}"
    command += f" --healthy {options.healthy:g} --size {options.size}"
    if options.further is not None:
        command += f" --further {options.further}"
    used = [syndrome for syndrome in SYNDROMES if len(set(syndrome.signs) & set(options.signs)) > 1]
    rows = [
        [
            syndrome.name,
            ", ".join(f"{name} {chance:.0%}" for name, chance in syndrome.signs.items() if name in options.signs),
            syndrome.basis,
        ]
        for syndrome in used
    ]
    table = _table(["disease", "signs", "basis"], rows)
    combined = f"\nThe diseases behind the combinations, with rounded or judged chances:\n\n{table}" if rows else ""
    return f"""\
## How it was made

```bash
{command}
```

The same faces, version and arguments give the same bytes. Labels are balanced, not as frequent as in any clinic: each
label (a sign on a side) leads equally many pictures, and what comes with it is drawn from diseases that show it, or by
chance. Signs that contradict each other on one eye or face are never together. Severities are uniform over (0.15, 1],
with a lower ceiling in some diseases. A sign that cannot be shown on a face (closed eyes, hair) goes to another one, or
is left out. No subject is in two splits; of photos every face counts as a subject, even if one person is in several.
{combined}"""


def _columns() -> str:
    rows = [
        ["`file_name`", "the picture, JPEG"],
        ["`mask_file_name`", "PNG of the same size: bit *i* of a pixel is set where finding *i* of the row covers it"],
        ["`subject_id`, `source`", "whose face, and which source face; of a photo a digest, never its file's name"],
        ["`findings`", "list of `manifestation`, `side` (the patient's own left or right, or both), `severity`"],
        ["`landmarks`", "478 points x, y, z of the face after the signs, in pixels of the crop at 256 px"],
        ["`seed`", "of the painting: with the source face and the findings it gives the same picture"],
        ["`skin_tone`", "of the source face, by its individual typology angle (Chardon et al., 1991)"],
        ["`sex`, `group`", "of the source face, where its publisher says so"],
    ]
    usage = """\
```python
from medeid.data.mema import load_mema

train = load_mema("OUT", split="train")
```
"""
    return "## What a row holds\n\n" + _table(["column", "meaning"], rows) + "\n" + usage


def _contents(counts: Counts) -> str:
    splits = list(counts.images)
    by_split = [
        [
            split,
            f"{counts.images[split]:,}",
            f"{counts.healthy[split]:,} ({counts.healthy[split] / counts.images[split]:.1%})",
            f"{len(counts.subjects[split]):,}",
        ]
        for split in splits
    ]
    by_label = [
        [label_name(name, side), *(f"{counts.labels[split, name, side]:,}" for split in splits)]
        for name, row in TAXONOMY.items()
        for side in (("left", "right") if row.lateral else ("both",))
        if any(counts.labels[split, name, side] for split in splits)
    ]
    pairs = [
        [f"{first} + {second}", f"{count:,}"]
        for (first, second), count in sorted(counts.pairs.items(), key=lambda item: (-item[1], item[0]))[:_TOP_PAIRS]
    ]
    sections = ["## What is in it\n", _table(["split", "images", "healthy", "subjects"], by_split)]
    sections += ["### Images a label\n", _table(["label", *splits], by_label)]
    sections += ["### Findings by severity\n", _histogram(counts.severities)]
    if pairs:
        sections += ["### Signs that are most often together\n", _table(["signs", "images"], pairs)]
    return "\n".join(sections)


def _histogram(severities: Counter[int]) -> str:
    most = max(severities.values(), default=1)
    lines = []
    for number in range(_SEVERITY_BINS):
        low, high = number / _SEVERITY_BINS, (number + 1) / _SEVERITY_BINS
        bar = "#" * round(_BAR_LENGTH * severities[number] / most)
        lines.append(f"({low:.1f}, {high:.1f}] {severities[number]:7,} {bar}".rstrip())
    return "```text\n" + "\n".join(lines) + "\n```\n"


def _balance(counts: Counts) -> str:
    total = counts.images.total()
    sections = [
        "## Balance\n",
        "By source face. Sex and group are as its publisher says; skin tone is measured, and depends on the light.\n",
    ]
    for name, counter in counts.balance.items():
        values = {value for value, _ in counter}
        if values == {_NOT_STATED}:
            continue
        rows = []
        for value in sorted(values, key=lambda value: (_ORDER.get(value, 0), value)):
            sick, healthy = counter[value, True], counter[value, False]
            rows.append([value, f"{sick + healthy:,}", f"{(sick + healthy) / total:.1%}", f"{healthy:,}"])
        sections.append(_table([name.replace("_", " "), "images", "share", "healthy"], rows))
    return "\n".join(sections)


_LIMITS = """\
## Limits

- The signs are simulated by rules, not seen in patients. A model that reads them well may fail on real disease; test it
  on clinical photographs before any use, and never use this set to judge a person's health.
- Which signs are together, and on which sides, is drawn with judged chances: nothing about prevalence can be learnt.
- Signs beyond medeid's taxonomy are not in it, and nobody has examined the healthy faces.
- Skin tones are balanced as in the source faces. On dark skin redness, pallor and jaundice look different, and are
  harder to see.
- The rights in the pictures are those in the source faces. The signs hide nobody: whoever a source face shows can be
  recognized in its pictures.
"""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
