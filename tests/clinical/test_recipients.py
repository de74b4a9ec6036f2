import os
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from medeid.clinical.recipients import read_opening_key, read_recipient, write_recipient
from medeid.identity.keys import InvalidKeyError, read_key, write_key


def test_a_pair_is_read_back_and_its_secret_half_is_for_its_owner_alone(tmp_path):
    public = write_recipient(tmp_path / "anna.key")
    assert public == tmp_path / "anna.key.pub"
    assert stat.S_IMODE(os.stat(tmp_path / "anna.key").st_mode) == 0o600
    secret = read_opening_key(tmp_path / "anna.key")
    assert secret.public_key().public_bytes_raw() == read_recipient(public).public_bytes_raw()
    assert "PRIVATE" not in public.read_text()


def test_a_studys_key_opens_too(tmp_path):
    write_key(tmp_path / "study.key")
    assert read_opening_key(tmp_path / "study.key") == read_key(tmp_path / "study.key")


def test_a_pair_is_never_overwritten(tmp_path):
    write_recipient(tmp_path / "anna.key")
    before = (tmp_path / "anna.key").read_bytes(), (tmp_path / "anna.key.pub").read_bytes()
    with pytest.raises(InvalidKeyError, match="choose another name"):
        write_recipient(tmp_path / "anna.key")
    (tmp_path / "anna.key").rename(tmp_path / "away")
    with pytest.raises(InvalidKeyError, match="choose another name"):
        write_recipient(tmp_path / "anna.key")
    assert ((tmp_path / "away").read_bytes(), (tmp_path / "anna.key.pub").read_bytes()) == before


def secret_pem(encryption):
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


@pytest.mark.parametrize(
    "content",
    [
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        secret_pem(NoEncryption()),
        secret_pem(BestAvailableEncryption(b"password")),
        b"no key",
    ],
)
def test_what_is_no_opening_key_is_told(content, tmp_path):
    (tmp_path / "key").write_bytes(content)
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(InvalidKeyError, match="no secret X25519 key|hexadecimal"):
        read_opening_key(tmp_path / "key")


def test_a_secret_half_that_others_may_read_is_refused(tmp_path):
    write_recipient(tmp_path / "anna.key")
    (tmp_path / "anna.key").chmod(0o644)
    with pytest.raises(InvalidKeyError, match="chmod 600"):
        read_opening_key(tmp_path / "anna.key")


def test_what_is_no_public_half_is_told(tmp_path):
    write_recipient(tmp_path / "anna.key")
    other = Ed25519PrivateKey.generate().public_key()
    (tmp_path / "other.pub").write_bytes(other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    for name in ("anna.key", "other.pub"):
        with pytest.raises(InvalidKeyError, match="no public X25519 key"):
            read_recipient(tmp_path / name)
    with pytest.raises(InvalidKeyError, match="cannot be read"):
        read_recipient(tmp_path / "none.pub")
