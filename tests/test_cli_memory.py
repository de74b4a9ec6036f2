"""`medeid deid` on a folder of thousands of photos needs no more memory at its end than at its beginning."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from medeid.data.faces import FaceFolder

MOST_GROWTH = 50  # MB
CHEAP = ["--steps", "1", "--max-attempts", "1", "--preserve", "none", "--on-fail", "blur", "--seed", "1"]


def write_photos(faces: FaceFolder, folder: Path, count: int) -> None:
    """Photos of one face each, no two alike in their noise and few in their size."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(count):
        image, side = faces.image(index % len(faces)), int(rng.integers(256, 321))
        noisy = image + rng.normal(0.0, 3.0, image.shape)
        photo = Image.fromarray(np.rint(noisy).clip(0, 255).astype(np.uint8))
        photo.resize((side, side)).save(folder / f"{index:04d}.jpg", quality=95)


def memory_by_photo(command: list[str], records: Path) -> dict[int, float]:
    """Runs a command, and notes the most resident memory (MB) that it has while each photo is done."""
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    most: dict[int, float] = {}
    done, read = 0, 0
    while process.poll() is None:
        if records.exists():
            with open(records, "rb") as file:
                file.seek(read)
                lines = file.read()
            done, read = done + lines.count(b"\n"), read + len(lines)
        try:
            resident = process.memory_info().rss / 1e6
        except psutil.NoSuchProcess:
            break
        most[done] = max(most.get(done, 0.0), resident)
        time.sleep(0.05)
    return most


def test_memory_does_not_grow_with_the_number_of_photos(faces_dir, tmp_path, request):
    """`pytest tests/test_cli_memory.py -n 0 -s --memory-photos 2000` is the figure that is reported."""
    count = request.config.getoption("--memory-photos")
    warm_up, span = min(100, count // 3), max(4, count // 40)
    clinic, out = tmp_path / "clinic", tmp_path / "out"
    write_photos(FaceFolder(faces_dir, "train"), clinic, count)
    command = [sys.executable, "-m", "medeid.cli", "deid", str(clinic), *CHEAP, "-o", str(out)]
    most = memory_by_photo(command, out / "records.jsonl")
    rows = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    assert len(rows) == count and all(row["output_sha256"] for row in rows)
    before = max(most[done] for done in most if warm_up <= done < warm_up + span)
    after = max(most[done] for done in most if count - span <= done < count)
    print(f"\n{count} photos: {before:.0f} MB after {warm_up}, {after:.0f} MB at the end, {after - before:+.0f} MB")
    assert after - before < MOST_GROWTH
