import os
import stat

import pytest

from medeid.identity.keys import InvalidKeyError, key_from_environment, read_key, write_key


def test_a_new_key_is_read_back_and_is_for_its_owner_alone(tmp_path):
    write_key(tmp_path / "key")
    write_key(tmp_path / "other")
    first, second = read_key(tmp_path / "key"), read_key(tmp_path / "other")
    assert len(first) == len(second) == 32 and first != second
    assert stat.S_IMODE(os.stat(tmp_path / "key").st_mode) == 0o600


def test_a_key_is_never_overwritten(tmp_path):
    write_key(tmp_path / "key")
    before = read_key(tmp_path / "key")
    with pytest.raises(InvalidKeyError, match="must not be lost"):
        write_key(tmp_path / "key")
    assert read_key(tmp_path / "key") == before


@pytest.mark.parametrize(
    ("text", "message"),
    [("not a key", "hexadecimal"), ("ab" * 15, "120 bits"), ("", "0 bits"), ("é" * 64, "no text|hexadecimal")],
)
def test_what_is_no_key_is_told_without_telling_it(tmp_path, text, message):
    path = tmp_path / "key"
    path.write_text(text, "utf-8")
    path.chmod(0o600)
    with pytest.raises(InvalidKeyError, match=message) as told:
        read_key(path)
    assert not text or text not in str(told.value)


def test_a_key_that_others_may_read_is_refused(tmp_path):
    write_key(tmp_path / "key")
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(InvalidKeyError, match="chmod 600"):
        read_key(tmp_path / "key")


def test_a_missing_file(tmp_path):
    with pytest.raises(InvalidKeyError, match="medeid keygen"):
        read_key(tmp_path / "key")


def test_the_environment(monkeypatch):
    monkeypatch.delenv("MEDEID_KEY", raising=False)
    assert key_from_environment() is None
    monkeypatch.setenv("MEDEID_KEY", "0f" * 16)
    assert key_from_environment() == b"\x0f" * 16
    monkeypatch.setenv("MEDEID_KEY", "secret")
    with pytest.raises(InvalidKeyError, match="MEDEID_KEY: must hold hexadecimal") as told:
        key_from_environment()
    assert "secret" not in str(told.value)
