"""`medeid audit verify`: 0 for an intact log, 2 with the line of the first fault, 1 for wrong usage."""

import pytest
from typer.testing import CliRunner

from medeid.cli import app
from medeid.clinical.audit import AuditLog
from medeid.identity.keys import read_key, write_key


@pytest.fixture(autouse=True)
def no_key_in_the_environment(monkeypatch):
    monkeypatch.delenv("MEDEID_KEY", raising=False)


def run(*arguments):
    return CliRunner().invoke(app, ["audit", "verify", *(str(argument) for argument in arguments)])


@pytest.fixture
def key_file(tmp_path):
    write_key(tmp_path / "study.key")
    return tmp_path / "study.key"


@pytest.fixture
def log(tmp_path, key_file):
    with AuditLog.open(tmp_path / "audit.jsonl", {}, read_key(key_file)) as log:
        log.append({"status": "released"})
        log.append({"status": "withheld"})
    return tmp_path / "audit.jsonl"


def test_an_intact_log(log, key_file, monkeypatch):
    result = run(log, "--key-file", key_file)
    assert result.exit_code == 0, result.output
    assert "intact: 4 records of 1 runs" in result.output and "not checked" not in result.output
    assert key_file.read_text().strip() not in result.output
    head = result.output.split()[-1]
    assert run(log, "--key-file", key_file, "--head", head).exit_code == 0
    monkeypatch.setenv("MEDEID_KEY", key_file.read_text().strip())
    assert "not checked" not in run(log).output


def test_without_the_key_it_is_told_what_was_not_checked(log):
    result = run(log)
    assert result.exit_code == 0 and "the HMACs were not checked" in result.output


def test_a_fault_is_told_with_its_line(log, key_file):
    log.write_text(log.read_text().replace("withheld", "released"))
    for options in ([], ["--key-file", key_file]):
        result = run(log, *options)
        assert result.exit_code == 2 and "line 3: the record was edited" in result.output


def test_a_noted_digest_that_is_gone_is_a_fault(log):
    result = run(log, "--head", "0" * 64)
    assert result.exit_code == 2 and "noted" in result.output


def test_wrong_usage(log, tmp_path):
    assert run().exit_code == 1
    missing = run(tmp_path / "none.jsonl")
    assert missing.exit_code == 1 and "cannot be read" in missing.output
    no_key = run(log, "--key-file", tmp_path / "none.key")
    assert no_key.exit_code == 1 and "medeid keygen" in no_key.output
