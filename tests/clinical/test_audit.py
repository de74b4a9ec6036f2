"""An audit log shows every change to it, goes on after a kill, and holds nobody's name."""

import hashlib
import json
import os
import signal
import subprocess
import sys

import pytest

from medeid.clinical.audit import AuditError, AuditLog, verify_log
from medeid.clinical.digests import model_sha256

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
SETTINGS = {"model": "medeid-tiny", "steps": 4}


def write(path, entries=3, key=None, close=True):
    log = AuditLog.open(path, SETTINGS, key)
    for number in range(entries):
        log.append({"photo": number, "status": "released", "output_sha256": f"{number:064x}"})
    if close:
        return log.close()
    log._file.close()  # as the system does for a killed process
    return log.head


def lines(path):
    return path.read_bytes().splitlines(keepends=True)


def resealed(line, **changes):
    """A record changed by somebody who knows the format, but no key: its own digest fits."""
    record = {**json.loads(line), **changes}
    del record["digest"]
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    record["digest"] = hashlib.sha256(text.encode() + b"\n").hexdigest()
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def rewritten(all_lines, change):
    """A whole log made anew without the key, so that all its digests fit."""
    result, head = [], "0" * 64
    for number, line in enumerate(all_lines, start=1):
        record = {**json.loads(line), "number": number, "previous": head}
        result.append(resealed(line, **change(record)))
        head = json.loads(result[-1])["digest"]
    return result


@pytest.mark.parametrize("key", [None, KEY])
def test_an_untouched_log_is_intact(tmp_path, key):
    head = write(tmp_path / "log", key=key)
    report = verify_log(tmp_path / "log", key)
    assert report.intact and report.closed and report.keyed == (key is not None)
    assert (report.records, report.runs, report.head, report.notes) == (5, 1, head, [])


def test_the_opening_record_tells_what_results_hang_on(tmp_path):
    write(tmp_path / "log")
    opening = json.loads(lines(tmp_path / "log")[0])
    assert opening["kind"] == "opening" and opening["previous"] == "0" * 64
    assert opening["content"]["settings"] == SETTINGS
    assert {"torch", "diffusers"} < set(opening["content"]["libraries"])


def edit(all_lines, at):
    record = json.loads(all_lines[at])
    record["content"]["status"] = "withheld"
    all_lines[at] = json.dumps(record, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def edit_and_reseal(all_lines, at):
    all_lines[at] = resealed(all_lines[at], time="2001-01-01T00:00:00+00:00")


def edit_one_bit(all_lines, at):
    middle = len(all_lines[at]) // 2
    all_lines[at] = all_lines[at][:middle] + bytes([all_lines[at][middle] ^ 1]) + all_lines[at][middle + 1 :]


def edit_spaces(all_lines, at):
    all_lines[at] = json.dumps(json.loads(all_lines[at])).encode() + b"\n"


def delete(all_lines, at):
    del all_lines[at]


def swap(all_lines, at):
    other = at + 1 if at + 1 < len(all_lines) else at - 1
    all_lines[at], all_lines[other] = all_lines[other], all_lines[at]


def double(all_lines, at):
    all_lines.insert(at, all_lines[at])


def insert(all_lines, at):
    all_lines.insert(at, b'{"status": "released"}\n')


def insert_nothing(all_lines, at):
    all_lines.insert(at, b"\n")


def cut(all_lines, at):
    del all_lines[at:]


def cut_inside(all_lines, at):
    all_lines[at] = all_lines[at][:-5]
    del all_lines[at + 1 :]


CHANGES = [edit, edit_one_bit, edit_spaces, delete, swap, double, insert, insert_nothing, cut, cut_inside]


@pytest.mark.parametrize("key", [None, KEY], ids=["no_key", "key"])
@pytest.mark.parametrize("at", range(7))
@pytest.mark.parametrize("change", CHANGES)
def test_any_change_is_found(tmp_path, change, at, key):
    path = tmp_path / "log"
    write(path, entries=5, key=key)
    changed = lines(path)
    change(changed, at)
    path.write_bytes(b"".join(changed))
    report = verify_log(path, key)
    assert not report.intact
    first = min(at, 5) if change is swap else at + 1 if change is double else at
    assert report.line == first + 1, report.fault


@pytest.mark.parametrize("at", range(6))
def test_a_record_whose_own_digest_was_made_to_fit_breaks_the_chain_at_the_next(tmp_path, at):
    path = tmp_path / "log"
    write(path, entries=5)
    changed = lines(path)
    edit_and_reseal(changed, at)
    path.write_bytes(b"".join(changed))
    assert verify_log(path).line == at + 2


@pytest.mark.parametrize("at", range(7))
def test_under_a_key_the_changed_record_itself_is_found(tmp_path, at):
    path = tmp_path / "log"
    write(path, entries=5, key=KEY)
    changed = lines(path)
    edit_and_reseal(changed, at)
    path.write_bytes(b"".join(changed))
    report = verify_log(path, KEY)
    assert report.line == at + 1 and "without the key" in report.fault


def test_a_log_made_anew_fits_without_a_key_but_not_under_one(tmp_path):
    path, keyed = tmp_path / "log", tmp_path / "keyed"
    write(path)
    write(keyed, key=KEY)

    def forge(record):
        return {**record, "time": "2001-01-01T00:00:00+00:00"}

    for file in (path, keyed):
        file.write_bytes(b"".join(rewritten(lines(file), forge)))
    assert verify_log(path).intact  # which is what the documentation warns of
    assert verify_log(keyed).notes == ["the HMACs were not checked; give the key, or a log that was made anew may pass"]
    assert verify_log(keyed, KEY).line == 1


def test_a_keyed_log_cannot_be_passed_off_as_one_without_a_key(tmp_path):
    path = tmp_path / "log"
    write(path)
    assert "not written under a key" in verify_log(path, KEY).fault
    write(tmp_path / "keyed", key=KEY)
    first, *rest = lines(tmp_path / "keyed")
    record = json.loads(rest[0])
    del record["mac"]
    path.write_bytes(first + resealed(json.dumps(record)))
    assert "same key" in verify_log(path).fault


def test_another_key_is_told(tmp_path):
    write(tmp_path / "log", key=KEY)
    report = verify_log(tmp_path / "log", OTHER_KEY)
    assert report.line == 1 and "another key" in report.fault


def test_a_noted_digest_shows_what_the_file_alone_cannot(tmp_path):
    path = tmp_path / "log"
    write(path)
    before = path.read_bytes()
    head = write(path)
    assert verify_log(path, head=head).intact and verify_log(path, head=head.upper()).intact
    path.write_bytes(before)
    assert verify_log(path).intact
    assert "noted" in verify_log(path, head=head).fault


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"[]\n", b"null\n", b"{}\n", b"text", b"\xff\xfe\n", b"[" * 100_000 + b"\n", b"1" * 9999]
)
def test_what_is_no_log_has_a_fault_and_is_never_written_to(tmp_path, content):
    path = tmp_path / "log"
    path.write_bytes(content)
    assert verify_log(path).line == 1
    if content:
        with pytest.raises(AuditError, match="line 1"):
            AuditLog.open(path, SETTINGS)
        assert path.read_bytes() == content


def test_a_mac_that_is_no_digest_is_a_fault(tmp_path):
    path = tmp_path / "log"
    write(path, key=KEY)
    changed = lines(path)
    changed[1] = resealed(changed[1], mac="é\ud800")
    path.write_bytes(b"".join(changed))
    assert verify_log(path, KEY).line == 2


@pytest.mark.parametrize("key", [None, KEY], ids=["no_key", "key"])
def test_a_later_run_goes_on_with_the_chain(tmp_path, key):
    path = tmp_path / "log"
    first = write(path, key=key)
    write(path, key=key)
    opening = json.loads(lines(path)[5])
    assert opening["kind"] == "opening" and opening["previous"] == first
    assert opening["content"]["before"] == {"closed": True, "cut_bytes": 0}
    report = verify_log(path, key)
    assert report.intact and (report.records, report.runs, report.notes) == (10, 2, [])


def test_a_log_stays_under_its_key(tmp_path):
    write(tmp_path / "keyed", key=KEY)
    write(tmp_path / "bare")
    for path, key in (("keyed", None), ("keyed", OTHER_KEY), ("bare", KEY)):
        before = (tmp_path / path).read_bytes()
        with pytest.raises(AuditError, match="key"):
            AuditLog.open(tmp_path / path, SETTINGS, key)
        assert (tmp_path / path).read_bytes() == before


def test_a_log_with_a_fault_is_not_gone_on_with(tmp_path):
    path = tmp_path / "log"
    write(path)
    changed = lines(path)
    delete(changed, 2)
    path.write_bytes(b"".join(changed))
    with pytest.raises(AuditError, match="line 3"):
        AuditLog.open(path, SETTINGS)


def test_an_unclosed_log_is_told_and_remembered(tmp_path):
    path = tmp_path / "log"
    write(path, close=False)
    report = verify_log(path)
    assert report.line == 5 and "not closed" in report.fault
    write(path)
    report = verify_log(path)
    assert report.intact and report.notes == ["the run before line 5 was not closed: killed, or cut off"]


def test_after_a_kill_at_any_byte_the_log_goes_on(tmp_path):
    path = tmp_path / "log"
    write(path, key=KEY, close=False)
    whole = path.read_bytes()
    last = len(lines(path)[-1])
    for size in range(len(whole) - last, len(whole) + 1):
        path.write_bytes(whole[:size])
        write(path, entries=0, key=KEY)
        report = verify_log(path, KEY)
        assert report.intact, (size, report.fault)
        kept = 4 if size == len(whole) else 3
        opening = json.loads(lines(path)[kept])
        torn = 0 if size == len(whole) else size - (len(whole) - last)
        assert opening["content"]["before"] == {"closed": False, "cut_bytes": torn}


WRITER = """
import sys
from medeid.clinical.audit import AuditLog
log = AuditLog.open(sys.argv[1], {})
number = 0
while True:
    log.append({"photo": number})
    number += 1
    print(number, flush=True)
"""


def test_what_was_appended_survives_kill_9(tmp_path):
    path = tmp_path / "log"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    with pytest.raises(AuditError, match="another run is writing"):
        while int(process.stdout.readline()) < 20:
            pass
        AuditLog.open(path, SETTINGS)
    os.kill(process.pid, signal.SIGKILL)
    told = [int(line) for line in process.communicate()[0].splitlines()]
    write(path, entries=0)
    report = verify_log(path)
    assert report.intact and report.records >= 1 + max([20, *told]) + 2


def test_an_exception_leaves_the_log_unclosed(tmp_path):
    path = tmp_path / "log"
    with pytest.raises(KeyboardInterrupt), AuditLog.open(path, SETTINGS) as log:
        log.append({"photo": 0})
        raise KeyboardInterrupt
    assert "not closed" in verify_log(path).fault
    with AuditLog.open(path, SETTINGS):
        pass
    assert verify_log(path).intact


def test_a_full_disk_leaves_a_whole_record_or_none(tmp_path, monkeypatch):
    path = tmp_path / "log"
    log = AuditLog.open(path, SETTINGS)
    log.append({"photo": 0})
    write_some = os.write

    def full(descriptor, content):
        if len(content) < 100:
            raise OSError(28, "No space left on device")
        return write_some(descriptor, content[:100])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(AuditError, match="No space left"):
            log.append({"photo": 1})
    log.append({"photo": 1})
    log.close()
    assert verify_log(path).intact


def test_sources_are_known_under_the_key_only(tmp_path):
    photo = tmp_path / "jane_doe.jpg"
    photo.write_bytes(b"Jane Doe, born 1970-01-01")
    told = []
    for number, key in enumerate([KEY, KEY, OTHER_KEY, None, None]):
        path = tmp_path / f"log{number}"
        with AuditLog.open(path, SETTINGS, key) as log:
            source = log.conceal(photo.name, photo)
            assert log.conceal(photo.name, photo) == source
            log.append({"source": source})
        text = path.read_text()
        assert "jane" not in text.lower() and "1970" not in text
        for plain in (photo.name.encode(), photo.read_bytes()):
            assert hashlib.sha256(plain).hexdigest() not in text
        assert (key or b"").hex() not in text or key is None
        told.append((source["name"], source["content"]))
    assert told[0] == told[1] and len(set(told)) == 4
    assert len({content for _, content in told}) == 4


def test_a_source_that_cannot_be_read_still_has_a_name(tmp_path):
    with AuditLog.open(tmp_path / "log", SETTINGS) as log:
        source = log.conceal("fe\udce9.jpg", tmp_path / "none.jpg")  # a name that is no UTF-8
    assert source["content"] is None and len(source["name"]) == 64


def test_what_is_no_json_by_itself_is_kept_as_json(tmp_path):
    with AuditLog.open(tmp_path / "log", SETTINGS) as log:
        log.append({"box": (1.5, 2.0), "counts": {9: "a", 10: "b"}, "name": "é"})
    assert verify_log(tmp_path / "log").intact


def test_a_place_that_cannot_be_written_to(tmp_path):
    with pytest.raises(AuditError, match="cannot be written"):
        AuditLog.open(tmp_path, SETTINGS)
    with pytest.raises(AuditError, match="No such file"):
        AuditLog.open(tmp_path / "none" / "log", SETTINGS)


def test_the_digest_of_a_model_is_that_of_its_weights_and_configs(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text("{}")
    (tmp_path / "unet" / "weights.safetensors").write_bytes(b"1")
    first = model_sha256(tmp_path)
    (tmp_path / "README.md").write_text("a model")
    assert model_sha256(tmp_path) == first
    (tmp_path / "unet" / "weights.safetensors").write_bytes(b"2")
    assert model_sha256(tmp_path) != first
