"""`medeid deid --engine ray`: the same results as from one process, whoever dies on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from medeid.cli import app
from medeid.clinical import ray_engine
from medeid.clinical.audit import verify_log
from medeid.clinical.digests import file_sha256
from medeid.clinical.ray_engine import RETRIES, RayEngineError, check_ray, deidentify_on_ray
from medeid.clinical.sources import PhotoFile
from medeid.identity.keys import read_key, write_key

needs_ray = pytest.mark.skipif(find_spec("ray") is None or os.name != "posix", reason="needs medeid[ray] and signals")
PSEUDONYM = "patient-roe-17"


def contents(out: Path) -> dict[str, object]:
    """All files of a folder; of the records what does not hang on the clock, and of the audit log whether it holds."""
    found: dict[str, object] = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        if path.name == "audit.jsonl":
            found[path.name] = verify_log(path).intact
        elif path.name == "records.jsonl":
            found[path.name] = [{**json.loads(line), "seconds": 0.0} for line in path.read_text().splitlines()]
        else:
            found[path.relative_to(out).as_posix()] = path.read_bytes()
    return found


def workers_of(process: int) -> list[int]:
    """The processes of a run that have a photo in hand."""
    import psutil

    found = []
    for child in psutil.Process(process).children(recursive=True):
        try:
            if child.cmdline()[:1] == ["ray::_Worker.run"]:
                found.append(child.pid)
        except psutil.Error:
            pass
    return found


def wait_for(condition, seconds: float = 300):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.01)
    raise TimeoutError


@pytest.fixture
def ray_folder(monkeypatch):
    """Where Ray keeps its logs: of a short name, as the paths of sockets may not be long."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def command(portrait, tmp_path, request):
    """The command for some photos of a patient, one of which shows no face, but for the folder of the results."""
    clinic = tmp_path / "doe_jane"
    clinic.mkdir()
    for index in range(request.config.getoption("--photos")):
        box = (100 - index % 40, index // 40, 356 - index % 40, 256 + index // 40)
        portrait.crop(box).save(clinic / f"jane_{index:03d}.png")
    portrait.crop((0, 0, 64, 64)).save(clinic / "jane_empty.png")
    write_key(tmp_path / "key")
    named = ["--pseudonym", PSEUDONYM, "--key-file", str(tmp_path / "key")]
    quick = ["--steps", "2", "--preserve", "none"]
    return [sys.executable, "-m", "medeid.cli", "deid", str(clinic), *named, *quick, "-o"]


def start(command: list[str], *more: str) -> subprocess.Popen:
    return subprocess.Popen([*command, *more], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def in_this_process(command: list[str], out: Path) -> int:
    """The local engine on one thread, as Ray's workers are: with another number of them sums come out otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return CliRunner().invoke(app, [*command[command.index("deid") :], str(out)]).exit_code
    finally:
        torch.set_num_threads(threads)


@needs_ray
def test_two_workers_of_which_some_die_make_the_same(command, ray_folder, tmp_path, request):
    """`pytest tests/clinical/test_ray_engine.py -k die --kills 10 --photos 200` tries harder."""
    alone, spread = tmp_path / "alone", tmp_path / "spread"
    assert in_this_process(command, alone) == 2
    process = start(command, str(spread), "--engine", "ray", "--workers", "2")
    for _ in range(request.config.getoption("--kills")):
        had = len(list(spread.glob("*.png")))
        for worker in wait_for(lambda: process.poll() is not None or workers_of(process.pid))[:1]:
            os.kill(worker, signal.SIGKILL)
        wait_for(lambda had=had: process.poll() is not None or len(list(spread.glob("*.png"))) > had)
    assert process.wait(3600) == 2
    assert contents(spread) == contents(alone)
    assert contents(spread)["audit.jsonl"] and len(contents(spread)["records.jsonl"]) == 1 + request.config.getoption(
        "--photos"
    )
    told = b"".join(path.read_bytes() for path in ray_folder.rglob("*") if path.is_file())
    key = read_key(tmp_path / "key")
    assert told and not [secret for secret in (b"jane", PSEUDONYM.encode(), key, key.hex().encode()) if secret in told]


@pytest.fixture
def slow(request):
    if request.config.getoption("--kills") < 2:
        pytest.skip("a minute of starting Ray and models: --kills 2")


@needs_ray
def test_a_killed_run_goes_on(slow, command, ray_folder, tmp_path):
    alone, broken = tmp_path / "alone", tmp_path / "broken"
    in_this_process(command, alone)
    ray = ["--engine", "ray", "--workers", "2"]
    process = start(command, str(broken), *ray)
    wait_for(lambda: list(broken.glob("*.png")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert start(command, str(broken), *ray).wait(3600) == 2
    assert contents(broken) == contents(alone)


@needs_ray
def test_a_photo_on_which_workers_always_die_is_left(slow, portrait, ray_folder, tmp_path):
    photos = []
    for index, name in enumerate(("fatal.png", "good.png")):
        portrait.crop((100, 0, 356, 256)).save(tmp_path / name)
        photos.append(PhotoFile(index, tmp_path / name, name, name[:-4]))
    killed: set[int] = set()

    def kill():
        while len(killed) <= RETRIES:
            for worker in set(workers_of(os.getpid())) - killed:
                os.kill(worker, signal.SIGKILL)
                killed.add(worker)
            time.sleep(0.01)

    options = {"device": "cpu", "num_inference_steps": 2, "preserve": "none", "model": "medeid-tiny"}
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    (_, fatal), (_, good) = deidentify_on_ray(photos, tmp_path / "out", options, workers=1)
    killer.join()
    assert fatal.record.status == "unusable" and "died on it 3 times" in fatal.reason
    assert good.record.output_sha256 == file_sha256(tmp_path / "out" / "good.png")


def test_what_is_missing_is_told_first(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_engine, "find_spec", lambda name: None)
    result = CliRunner().invoke(app, ["deid", "photo.jpg", "-o", str(tmp_path / "out"), "--engine", "ray"])
    assert result.exit_code == 1 and "pip install medeid[ray]" in result.output
    assert not (tmp_path / "out").exists()


@needs_ray
def test_ray_chooses_the_gpu():
    with pytest.raises(RayEngineError, match="give --device cuda"):
        check_ray("cuda:1")


@pytest.mark.parametrize("engine, option, other", [("local", "--workers", "--jobs"), ("ray", "--jobs", "--workers")])
def test_each_engine_has_its_own_option(engine, option, other, tmp_path):
    result = CliRunner().invoke(app, ["deid", "a.jpg", "-o", str(tmp_path), "--engine", engine, option, "2"])
    assert result.exit_code == 1 and f"give {other}" in result.output
