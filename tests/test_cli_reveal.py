"""`medeid reveal`: the source for the authorised, one clear message and no file for everybody else."""

import hashlib
import os
import stat

import pytest
from typer.testing import CliRunner

from medeid.cli import app
from medeid.clinical.recipients import read_recipient, write_recipient
from medeid.clinical.vault import Vault
from medeid.identity.keys import read_key, write_key

SOURCE = b"\xff\xd8 a photo of Jane Doe"


@pytest.fixture(autouse=True)
def no_key_in_the_environment(monkeypatch):
    monkeypatch.delenv("MEDEID_KEY", raising=False)


@pytest.fixture
def folder(tmp_path):
    """A vault for a study's key and a recipient, and keys that do not open it."""
    for name in ("study.key", "other.key"):
        write_key(tmp_path / name)
    for name in ("anna.key", "eve.key"):
        write_recipient(tmp_path / name)
    (tmp_path / "released.png").write_bytes(b"released")
    (tmp_path / "unknown.png").write_bytes(b"unknown")
    recipients = [read_recipient(tmp_path / "anna.key.pub")]
    with Vault.open(tmp_path / "study.vault", read_key(tmp_path / "study.key"), recipients) as vault:
        vault.seal(hashlib.sha256(b"released").hexdigest(), SOURCE)
    return tmp_path


def run(folder, output="released.png", key="study.key", restored="restored.jpg"):
    arguments = ["reveal", folder / output, "--vault", folder / "study.vault", "-o", folder / restored]
    arguments += ["--key-file", folder / key] if key else []
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("key", ["study.key", "anna.key"])
def test_the_source_is_restored_for_whoever_may_see_it(folder, key):
    result = run(folder, key=key)
    assert result.exit_code == 0, result.output
    assert (folder / "restored.jpg").read_bytes() == SOURCE
    assert stat.S_IMODE(os.stat(folder / "restored.jpg").st_mode) == 0o600


def test_the_key_in_the_environment_opens_it(folder, monkeypatch):
    monkeypatch.setenv("MEDEID_KEY", (folder / "study.key").read_text().strip())
    assert run(folder, key=None).exit_code == 0


@pytest.mark.parametrize(
    "options, message",
    [
        ({"key": "other.key"}, "does not open this vault"),
        ({"key": "eve.key"}, "does not open this vault"),
        ({"output": "unknown.png"}, "holds nothing for this file"),
        ({"output": "none.png"}, "cannot be read"),
    ],
)
def test_nobody_else_gets_anything(folder, options, message):
    before = sorted(folder.iterdir())
    result = run(folder, **options)
    assert result.exit_code == 2 and message in result.output
    assert sorted(folder.iterdir()) == before


def test_a_changed_vault_gives_nothing(folder):
    content = bytearray((folder / "study.vault").read_bytes())
    content[-1] ^= 1
    (folder / "study.vault").write_bytes(content)
    result = run(folder)
    assert result.exit_code == 2 and "changed or damaged" in result.output
    assert not (folder / "restored.jpg").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"restored": "released.png"}, "nothing is overwritten"),
        ({"key": None}, "opens by a key only"),
        ({"key": "none.key"}, "cannot be read"),
        ({"key": "anna.key.pub"}, "may be read by others"),
    ],
)
def test_wrong_usage(folder, options, message):
    result = run(folder, **options)
    assert result.exit_code == 1 and message in result.output
    assert (folder / "released.png").read_bytes() == b"released" and not (folder / "restored.jpg").exists()
