"""`medeid deid` on folders: a tree stays a tree, and a run that is killed goes on as if it had not been."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from medeid.cli import app
from medeid.clinical.audit import verify_log
from medeid.clinical.digests import file_sha256

QUICK = ["--steps", "2", "--seed", "1", "--preserve", "none"]


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def contents(out: Path) -> dict[str, object]:
    """All files of a folder; of the records what does not depend on the clock, and of the audit log nothing."""
    found: dict[str, object] = {}
    for path in sorted(out.rglob("*")):
        if path.name == "audit.jsonl":
            found[path.name] = verify_log(path).intact
        elif path.name == "records.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[path.name] = [{**row, "seconds": 0.0} for row in rows]
        elif path.is_file():
            found[path.relative_to(out).as_posix()] = file_sha256(path)
    return found


@pytest.fixture
def clinic(portrait, tmp_path):
    """Five photos of which one shows no face, in three folders."""
    folder = tmp_path / "clinic"
    for index, name in enumerate(("doe/jane.jpg", "doe/visit2/jane.jpg", "roe.png", "empty.jpg", "notes.txt")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".txt":
            path.write_text("no picture")
        elif path.stem == "empty":
            Image.new("RGB", (64, 64)).save(path)
        else:
            portrait.crop((100 - index, 0, 356 - index, 256)).save(path)
    return folder


def test_a_tree_stays_a_tree(clinic, tmp_path):
    result = run("deid", clinic, "-o", tmp_path / "out", "--recursive", *QUICK)
    assert result.exit_code == 2 and "3 of 4 photos released" in result.output
    assert "notes.txt: no picture" in result.output
    assert set(contents(tmp_path / "out")) == {
        "doe/jane.png",
        "doe/visit2/jane.png",
        "roe.png",
        "audit.jsonl",
        "records.jsonl",
        "withheld/empty.txt",
    }


def test_any_number_of_processes_makes_the_same_bytes(clinic, tmp_path):
    results = []
    for jobs in (1, 2):
        out = tmp_path / str(jobs)
        run("deid", clinic, "-o", out, "-r", "--jobs", jobs, *QUICK)
        results.append({path.relative_to(out): path.read_bytes() for path in out.rglob("*.png")})
    assert results[0] == results[1] and len(results[0]) == 3


def test_a_wrong_model_is_told_by_any_number_of_processes(clinic, tmp_path):
    for jobs in (1, 2):
        result = run("deid", clinic, "-o", tmp_path / str(jobs), "--device", "nonsense", "--jobs", jobs)
        assert result.exit_code == 1 and "--device nonsense" in result.output


def test_results_by_number_tell_no_name(clinic, tmp_path):
    run("deid", clinic, "-o", tmp_path / "out", "-r", "--names", "sequence", *QUICK)
    told = json.dumps({name: str(content) for name, content in contents(tmp_path / "out").items()})
    assert "000002.png" in told and "jane" not in told and "doe" not in told


def test_follow_up_photos_share_a_surrogate(clinic, tmp_path, monkeypatch):
    monkeypatch.delenv("MEDEID_KEY", raising=False)
    table = tmp_path / "patients.csv"
    table.write_text("photo,pseudonym\ndoe/jane.jpg,P17\ndoe/visit2/jane.jpg,P17\n")
    assert run("keygen", tmp_path / "key").exit_code == 0
    options = ["--pseudonyms", table, "--key-file", tmp_path / "key", "--preserve", "none"]
    result = run("deid", clinic / "doe", "-o", tmp_path / "none", "-r", *options)
    assert result.exit_code == 1 and "names 2 photos that are not given" in result.output
    run("deid", clinic, "-o", tmp_path / "out", "-r", *options)
    _, first, second = [row for row in contents(tmp_path / "out")["records.jsonl"] if row["faces"]]
    digests = [row["faces"][0]["attempts"][0]["surrogate_digest"] for row in (first, second)]
    assert digests[0] == digests[1]


def test_what_is_in_the_vault_can_be_restored(clinic, tmp_path, monkeypatch):
    monkeypatch.delenv("MEDEID_KEY", raising=False)
    key, vault, out = tmp_path / "key", tmp_path / "vault", tmp_path / "out"
    run("keygen", key)
    result = run("deid", clinic, "-o", out, "-r", "--vault", vault, "--key-file", key, *QUICK)
    assert "3 of 4 photos released" in result.output and "every face is drawn anew" not in result.output
    source = clinic / "doe" / "jane.jpg"
    assert source.read_bytes() not in vault.read_bytes()
    restored = tmp_path / "restored.jpg"
    result = run("reveal", out / "doe" / "jane.png", "--vault", vault, "--key-file", key, "-o", restored)
    assert result.exit_code == 0, result.output
    assert restored.read_bytes() == source.read_bytes()
    assert run("audit", "verify", out / "audit.jsonl", "--key-file", key).exit_code == 0


def kill_until_done(command: list[str], out: Path, kills: int, rng: random.Random) -> int:
    """Runs a command, kills it at random moments, and lets it end at last; returns how often it was killed."""
    killed = 0
    for _ in range(kills):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        had = len(list(out.rglob("*.png")))
        while process.poll() is None and len(list(out.rglob("*.png"))) == had and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.3))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
    subprocess.run(command, stdout=subprocess.DEVNULL, timeout=600)
    return killed


@pytest.mark.skipif(os.name != "posix", reason="kills by a POSIX signal")
def test_a_killed_run_goes_on_as_if_nothing_had_been(portrait, tmp_path, request):
    """`pytest tests/test_cli_folders.py -k killed --kills 20 --photos 50` tries harder."""
    kills, photos = request.config.getoption("--kills"), request.config.getoption("--photos")
    clinic = tmp_path / "clinic"
    clinic.mkdir()
    for index in range(photos):
        portrait.crop((100 - index % 40, index // 40, 356 - index % 40, 256 + index // 40)).save(
            clinic / f"{index}.png"
        )
    command = [sys.executable, "-m", "medeid.cli", "deid", str(clinic), *QUICK, "-o"]
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    subprocess.run([*command, str(straight)], stdout=subprocess.DEVNULL, timeout=1200)
    assert kill_until_done([*command, str(broken)], broken, kills, random.Random(0)) >= min(kills, 1)
    assert contents(straight) == contents(broken)
    assert len(contents(broken)["records.jsonl"]) == photos
