"""Signatures: beside the digest, checked by ssh-keygen, each fault refused by its name."""

import base64
import shutil

import pytest

from agent.contract import signatures
from agent.contract.archive import BundleReader, read_signatures, verify_folder
from agent.contract.errors import DeviceError, IntegrityError
from agent.contract.signatures import Trust, require, verify
from packager.bundle.sign import sign
from tests.agent import signing
from tests.agent.bundles import entries, write_entries

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    return [signing.key(folder, "a"), signing.key(folder, "b")]


@pytest.fixture
def bundle(tmp_path, keys):
    path = tmp_path / "small.edgepack"
    signing.signed(path, keys[0])
    return path


def read(path):
    with BundleReader(path) as reader:
        return reader.digest, reader.signatures


def refused(code, digest, found, trust):
    with pytest.raises(IntegrityError) as caught:
        require(digest, found, trust)
    assert (caught.value.code, caught.value.exit_code) == (code, 7)


def test_signing_keeps_the_digest_and_signing_twice_the_bytes(bundle, keys, tmp_path):
    digest, found = read(bundle)
    assert digest == signing.signed(tmp_path / "plain.edgepack")
    raw = bundle.read_bytes()
    sign(bundle, keys[0])
    assert bundle.read_bytes() == raw
    sign(bundle, keys[1])
    assert read(bundle)[0] == digest
    assert len(read(bundle)[1]) == 2
    assert set(found) < set(read(bundle)[1])


def test_valid_unknown_revoked_expired(bundle, keys):
    digest, found = read(bundle)
    trust = Trust(allowed_signers=signing.allowed(keys[0]))
    (verdict,) = require(digest, found, trust)
    assert (verdict.status, verdict.principal) == ("valid", "alice@example.org")
    assert verify(digest, found)[0].status == "unknown"
    refused("untrusted", digest, found, Trust(allowed_signers=signing.allowed(keys[1])))
    gone = base64.b64encode(signing.public(keys[0]).encode()).decode()
    refused("revoked", digest, found, Trust(allowed_signers=trust.allowed_signers, revoked=gone))
    expired = signing.allowed(keys[0], options='valid-before="20200101" ')
    refused("untrusted", digest, found, Trust(allowed_signers=expired))


def test_a_list_of_revoked_keys_that_cannot_be_read_lets_nothing_through(bundle, keys):
    digest, found = read(bundle)
    trust = Trust(allowed_signers=signing.allowed(keys[0]), revoked=base64.b64encode(b"garbage\n").decode())
    with pytest.raises(IntegrityError):
        require(digest, found, trust)


def test_rotation_either_key_is_enough(bundle, keys):
    sign(bundle, keys[1])
    digest, found = read(bundle)
    for key in keys:
        statuses = {one.status for one in require(digest, found, Trust(allowed_signers=signing.allowed(key)))}
        assert statuses == {"valid", "unknown"}


def test_a_signature_of_another_bundle_is_bad(bundle, keys, tmp_path):
    digest, found = read(bundle)
    refused("bad-signature", "sha256:" + "0" * 64, found, Trust(allowed_signers=signing.allowed(keys[0])))
    assert verify("sha256:" + "0" * 64, found)[0].status == "bad"
    assert digest != "sha256:" + "0" * 64


def test_unsigned_is_refused(keys):
    refused("unsigned", "sha256:" + "0" * 64, {}, Trust(allowed_signers=signing.allowed(keys[0])))


def test_no_ssh_keygen_is_an_error_and_no_pass(bundle, monkeypatch):
    digest, found = read(bundle)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(DeviceError) as caught:
        require(digest, found, Trust())
    assert caught.value.code == "no-ssh-keygen"


def test_an_old_ssh_keygen_is_told(tmp_path, monkeypatch):
    program = tmp_path / "ssh-keygen"
    program.write_text("#!/bin/sh\necho 'unknown option -- Y' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(DeviceError, match="too old"):
        signatures.find_ssh_keygen()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("fault", ["garbage", "another-key", "twice", "too-large", "in-the-middle", "not-a-name"])
def test_broken_signature_entries_are_refused(bundle, fault, tmp_path):
    _, found = read(bundle)
    ((name, raw),) = found.items()
    whole = entries()
    other = f"signatures/{'0' * 64}.sig"
    more = {
        "garbage": [*whole, (name, b"garbage")],
        "another-key": [*whole, (other, raw)],
        "twice": [*whole, (name, raw), (name, raw)],
        "too-large": [*whole, (name, raw + b"\n" * 20000)],
        "in-the-middle": [*whole[:-1], (name, raw), whole[-1]],
        "not-a-name": [*whole, ("signatures/x.sig", raw)],
    }[fault]
    path = write_entries(tmp_path / "broken.edgepack", more)
    with pytest.raises(IntegrityError), BundleReader(path):
        pass


def test_unpacked_bundles_keep_their_signatures(bundle, tmp_path):
    digest, found = read(bundle)
    with BundleReader(bundle) as reader:
        reader.extract(tmp_path / "out")
    assert read_signatures(tmp_path / "out") == found
    verify_folder(tmp_path / "out", digest)


def test_a_directory_that_claims_millions_of_files_is_not_read(tmp_path):
    path = write_entries(tmp_path / "many.edgepack", entries())
    raw = bytearray(path.read_bytes())
    raw[-12:-10] = raw[-14:-12] = b"\xff\xff"
    path.write_bytes(raw)
    with pytest.raises(IntegrityError, match="65535 files"), BundleReader(path):
        pass
