"""A vault gives a source back bit for bit to whoever may open it, and nothing to anybody else."""

import hashlib
import os
import random
import signal
import stat
import struct
import subprocess
import sys
import zlib

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from medeid.clinical.vault import Vault, VaultError, restore, reveal

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
SOURCES = [b"\xff\xd8 a photo of Jane Doe", b"", random.Random(0).randbytes(5000)]
HEADER = 26 + 33 + 32  # bytes of that of a vault with one slot


@pytest.fixture
def outputs(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(len(SOURCES))]
    for number, path in enumerate(paths):
        path.write_bytes(f"released {number}".encode())
    return paths


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fill(path, outputs, sources=SOURCES, key=KEY, recipients=()):
    """Seals one after the other, and returns the vault's size before and after each."""
    sizes = []
    with Vault.open(path, key, recipients) as vault:
        for output, source in zip(outputs, sources, strict=True):
            sizes.append(path.stat().st_size)
            vault.seal(digest(output), source)
    return [*sizes, path.stat().st_size]


@pytest.fixture
def vault(tmp_path, outputs):
    fill(tmp_path / "vault", outputs)
    return tmp_path / "vault"


def test_sources_come_back_bit_for_bit(vault, outputs):
    assert [reveal(vault, output, KEY) for output in outputs] == SOURCES
    assert stat.S_IMODE(os.stat(vault).st_mode) == 0o600


def test_a_vault_shows_nothing_of_what_is_in_it(vault, outputs):
    content = vault.read_bytes()
    assert b"Jane" not in content and SOURCES[2][:16] not in content and KEY not in content
    assert len(set(content[-4000:])) == 256
    for source in SOURCES:
        assert hashlib.sha256(source).digest() not in content


def test_the_same_source_is_sealed_differently_each_time(tmp_path, outputs):
    path = tmp_path / "vault"
    with Vault.open(path, KEY) as vault:
        sizes = [path.stat().st_size]
        for _ in range(2):
            vault.seal(digest(outputs[0]), SOURCES[2])
            sizes.append(path.stat().st_size)
    content = path.read_bytes()
    first, second = content[sizes[0] : sizes[1]][48:], content[sizes[1] : sizes[2]][48:]
    assert len(first) == len(second) and sum(a == b for a, b in zip(first, second, strict=True)) < len(first) / 50


def test_a_later_run_goes_on_with_a_vault(tmp_path, outputs):
    path = tmp_path / "vault"
    for output, source in zip(outputs, SOURCES, strict=True):
        fill(path, [output], [source])
    assert [reveal(path, output, KEY) for output in outputs] == SOURCES


def test_each_recipient_opens_it_by_his_own_secret_half(tmp_path, outputs):
    anna, ben, eve = (X25519PrivateKey.generate() for _ in range(3))
    publics = [anna.public_key(), ben.public_key()]
    fill(tmp_path / "both", outputs, recipients=publics)
    fill(tmp_path / "recipients", outputs, key=None, recipients=publics)
    for path, keys in (("both", [KEY, anna, ben]), ("recipients", [anna, ben])):
        for key in keys:
            assert [reveal(tmp_path / path, output, key) for output in outputs] == SOURCES
    for path, key in (("both", eve), ("both", OTHER_KEY), ("recipients", eve), ("recipients", KEY)):
        with pytest.raises(VaultError, match="does not open this vault"):
            reveal(tmp_path / path, outputs[0], key)


def test_whoever_seals_for_recipients_needs_no_secret_to_go_on(tmp_path, outputs):
    anna = X25519PrivateKey.generate()
    for output, source in zip(outputs, SOURCES, strict=True):
        fill(tmp_path / "vault", [output], [source], key=None, recipients=[anna.public_key()])
    assert [reveal(tmp_path / "vault", output, anna) for output in outputs] == SOURCES


def test_nobody_is_smuggled_in_among_the_recipients(tmp_path, outputs):
    anna, eve = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    fill(tmp_path / "vault", outputs, key=None, recipients=[anna.public_key(), eve.public_key()])
    before = (tmp_path / "vault").read_bytes()
    for key, recipients in ((None, [anna.public_key()]), (KEY, [anna.public_key()]), (KEY, [])):
        with pytest.raises(VaultError, match="another key or other recipients"):
            Vault.open(tmp_path / "vault", key, recipients)
    assert (tmp_path / "vault").read_bytes() == before


def test_a_vault_that_nobody_could_open_is_not_made(tmp_path):
    with pytest.raises(VaultError, match="nobody could open it"):
        Vault.open(tmp_path / "vault")
    assert not (tmp_path / "vault").exists()


def test_a_public_key_that_anybody_could_open_is_refused(tmp_path, outputs):
    low_order = X25519PublicKey.from_public_bytes(bytes(32))
    with Vault.open(tmp_path / "vault", None, [low_order]) as vault, pytest.raises(VaultError, match="public key"):
        vault.seal(digest(outputs[0]), SOURCES[0])


def test_a_changed_output_gets_nothing(vault, outputs):
    outputs[0].write_bytes(outputs[0].read_bytes() + b"\0")
    with pytest.raises(VaultError, match="holds nothing for this file"):
        reveal(vault, outputs[0], KEY)


def test_the_vault_of_another_run_gives_nothing(tmp_path, outputs):
    fill(tmp_path / "first", outputs[:1], SOURCES[:1])
    fill(tmp_path / "second", outputs[1:2], SOURCES[1:2])
    with pytest.raises(VaultError, match="holds nothing for this file"):
        reveal(tmp_path / "second", outputs[0], KEY)


def frame(entry, **changes):
    """The frame of an entry with other values, whose check sum fits."""
    mark, size, output, _ = struct.unpack(">4sQ32sI", entry[:48])
    body = struct.pack(">4sQ32s", mark, changes.get("size", size), changes.get("output", output))
    return body + struct.pack(">I", zlib.crc32(body))


def test_an_entry_of_another_file_or_vault_does_not_pass_for_this_one(tmp_path, outputs):
    sizes = fill(tmp_path / "vault", outputs)
    fill(tmp_path / "other", outputs, [b"x" * len(source) for source in SOURCES])
    content, other = (tmp_path / "vault").read_bytes(), (tmp_path / "other").read_bytes()
    first, second = content[sizes[0] : sizes[1]], content[sizes[1] : sizes[2]]
    renamed = frame(first, output=bytes.fromhex(digest(outputs[1]))) + first[48:]
    for changed in (
        content[: sizes[1]] + renamed,  # under the name of another file
        content[: sizes[0]] + other[sizes[0] :],  # from another vault
        content[: sizes[1]] + second[:48] + first[48:180] + second[180:],  # with the keys of another entry
    ):
        (tmp_path / "vault").write_bytes(changed)
        with pytest.raises(VaultError, match="was changed or damaged"):
            reveal(tmp_path / "vault", outputs[1], KEY)


@pytest.mark.parametrize("for_recipients", [False, True])
def test_any_flipped_bit_of_a_vault_with_one_entry_is_refused(tmp_path, outputs, for_recipients):
    path = tmp_path / "vault"
    anna, ben = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    recipients = [anna.public_key(), ben.public_key()] if for_recipients else []
    fill(path, outputs[:1], SOURCES[:1], recipients=recipients)
    key = anna if for_recipients else KEY
    content = path.read_bytes()
    rng = random.Random(1)
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(VaultError):
            reveal(path, outputs[0], key)


def test_a_flipped_bit_gives_the_source_or_an_error_and_never_something_else(vault, outputs):
    content = vault.read_bytes()
    rng = random.Random(2)
    for _ in range(400):
        changed = bytearray(content)
        changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        vault.write_bytes(changed)
        refused = 0
        for output, source in zip(outputs, SOURCES, strict=True):
            try:
                assert reveal(vault, output, KEY) == source
            except VaultError:
                refused += 1
        assert refused >= 1


def test_a_damaged_frame_is_not_taken_for_half_an_entry_and_cut_off(tmp_path, outputs):
    path = tmp_path / "vault"
    sizes = fill(path, outputs)
    content = path.read_bytes()
    for place in range(sizes[0], sizes[0] + 48):
        for bit in (0, 7):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            path.write_bytes(changed)
            with pytest.raises(VaultError, match="damaged"):
                Vault.open(path, KEY)
            assert path.read_bytes() == changed


def test_a_vault_cut_at_any_place_keeps_what_is_whole(tmp_path, outputs):
    path = tmp_path / "vault"
    sizes = fill(path, outputs[:2], SOURCES[:2])
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        for number, output in enumerate(outputs[:2]):
            if size >= sizes[number + 1]:
                assert reveal(path, output, KEY) == SOURCES[number]
            else:
                with pytest.raises(VaultError):
                    reveal(path, output, KEY)


def test_after_a_kill_at_any_byte_of_an_entry_the_vault_goes_on(tmp_path, outputs):
    path = tmp_path / "vault"
    sizes = fill(path, outputs[:2], SOURCES[:2])
    content = path.read_bytes()
    for size in range(sizes[1], sizes[2]):
        path.write_bytes(content[:size])
        fill(path, outputs[2:], SOURCES[2:])
        assert path.read_bytes()[: sizes[1]] == content[: sizes[1]]
        assert reveal(path, outputs[0], KEY) == SOURCES[0] and reveal(path, outputs[2], KEY) == SOURCES[2]
        with pytest.raises(VaultError, match="holds nothing"):
            reveal(path, outputs[1], KEY)


def test_a_vault_killed_in_its_first_bytes_is_begun_again(tmp_path, outputs):
    path = tmp_path / "vault"
    for size in range(26):
        path.write_bytes(b"MEDVAULT\x01\x01" + bytes(16))
        os.truncate(path, size)
        fill(path, outputs)
        assert reveal(path, outputs[0], KEY) == SOURCES[0]
        path.unlink()


WRITER = """
import sys
from medeid.clinical.vault import Vault
vault = Vault.open(sys.argv[1], b"k" * 32)
number = 0
while True:
    vault.seal(f"{number:064x}", bytes([number % 256]) * 300_000)
    print(number, flush=True)
    number += 1
"""


def test_what_was_sealed_survives_kill_9(tmp_path, outputs):
    path = tmp_path / "vault"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    while int(process.stdout.readline()) < 5:
        pass
    with pytest.raises(VaultError, match="another run is writing"):
        Vault.open(path, KEY)
    os.kill(process.pid, signal.SIGKILL)
    told = max([5, *(int(line) for line in process.communicate()[0].splitlines())])
    fill(path, outputs)
    assert [reveal(path, output, KEY) for output in outputs] == SOURCES
    assert path.read_bytes().count(b"SEAL" + (92 + 12 + 300_000 + 16).to_bytes(8, "big")) >= told + 1


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "no vault"),
        (b"a photo", "no vault"),
        (b"MEDVAULT", "ends in its header"),
        (b"MEDVAULT\x02\x01" + bytes(100), "version 2"),
        (b"MEDVAULT\x01\x00" + bytes(16) + hashlib.sha256(b"MEDVAULT\x01\x00" + bytes(16)).digest(), "in its header"),
        (b"MEDVAULT\x01\xff" + bytes(100), "in its header"),
    ],
)
def test_what_is_no_vault_is_told(tmp_path, outputs, content, message):
    (tmp_path / "vault").write_bytes(content)
    with pytest.raises(VaultError, match=message):
        reveal(tmp_path / "vault", outputs[0], KEY)


def test_a_file_that_is_no_vault_is_never_written_to(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(SOURCES[0])
    with pytest.raises(VaultError, match="no vault"):
        Vault.open(tmp_path / "photo.jpg", KEY)
    assert (tmp_path / "photo.jpg").read_bytes() == SOURCES[0]


def test_missing_files_are_told(tmp_path, vault, outputs):
    with pytest.raises(VaultError, match="released file cannot be read"):
        reveal(vault, tmp_path / "none.png", KEY)
    with pytest.raises(VaultError, match="vault cannot be read"):
        reveal(tmp_path / "none", outputs[0], KEY)
    with pytest.raises(VaultError, match="cannot be written"):
        Vault.open(tmp_path / "none" / "vault", KEY)


def test_half_a_digest_is_refused(tmp_path):
    with Vault.open(tmp_path / "vault", KEY) as vault, pytest.raises(VaultError, match="all 64 digits"):
        vault.seal("ab" * 16, b"source")


def test_a_full_disk_leaves_the_vault_as_it_was(tmp_path, outputs, monkeypatch):
    path = tmp_path / "vault"
    write_some = os.write

    def full(descriptor, content):
        if len(content) < 2000:
            raise OSError(28, "No space left on device")
        return write_some(descriptor, content[:2000])

    with Vault.open(path, KEY) as vault:
        vault.seal(digest(outputs[0]), SOURCES[0])
        before = path.read_bytes()
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            with pytest.raises(VaultError, match="No space left"):
                vault.seal(digest(outputs[2]), SOURCES[2])
        assert path.read_bytes() == before


def test_a_source_is_restored_for_its_owner_alone(tmp_path, vault, outputs):
    restore(vault, outputs[2], KEY, tmp_path / "restored.jpg")
    assert (tmp_path / "restored.jpg").read_bytes() == SOURCES[2]
    assert stat.S_IMODE(os.stat(tmp_path / "restored.jpg").st_mode) == 0o600


def test_nothing_is_written_unless_all_is_right(tmp_path, vault, outputs):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(VaultError, match="does not open"):
        restore(vault, outputs[0], OTHER_KEY, tmp_path / "restored.jpg")
    with pytest.raises(VaultError, match="exists"):
        restore(vault, outputs[0], KEY, outputs[1])
    with pytest.raises(VaultError, match="cannot be written"):
        restore(vault, outputs[0], KEY, tmp_path / "none" / "restored.jpg")
    assert sorted(tmp_path.iterdir()) == before
    assert outputs[1].read_bytes() == b"released 1"


def test_an_entry_forged_without_the_key_does_not_open_under_it(tmp_path, outputs):
    path = tmp_path / "vault"
    anna = X25519PrivateKey.generate()
    fill(path, outputs[:1], SOURCES[:1], recipients=[anna.public_key()])
    with Vault.open(path, KEY, [anna.public_key()]) as vault:
        vault._key = OTHER_KEY  # somebody who writes the format by himself
        vault.seal(digest(outputs[1]), b"forged")
    assert reveal(path, outputs[1], anna) == b"forged"  # which is what the documentation warns of
    with pytest.raises(VaultError, match="changed or damaged"):
        reveal(path, outputs[1], KEY)
