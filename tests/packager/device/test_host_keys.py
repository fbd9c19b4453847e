"""known_hosts as OpenSSH reads and writes it."""

import subprocess
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.errors import DeviceError, UsageError
from packager.device.host_keys import HostKey, known_name, lookup, remember, verify

ONE, TWO = HostKey("ssh-ed25519", b"one"), HostKey("ssh-ed25519", b"two")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "known_hosts"


def knows(file, name, key=ONE):
    try:
        verify(name, key, [file], name)
    except DeviceError as error:
        return error.code
    return "yes"


@pytest.mark.parametrize(
    ("names", "asked", "answer"),
    [
        ("board", "board", "yes"),
        ("board", "boar", "host-key-unknown"),
        ("BOARD,10.0.0.7", "board", "yes"),
        ("*.lab", "board.lab", "yes"),
        ("*.lab,!board.lab", "board.lab", "host-key-unknown"),
        ("!board.lab,*.lab", "board.lab", "host-key-unknown"),
        ("board?", "board1", "yes"),
        ("[board]:2222", "[board]:2222", "yes"),
        ("[board]:2222", "board", "host-key-unknown"),
        ("board", "[board]:2222", "host-key-unknown"),
        ("[*]:2222", "[board]:2222", "yes"),
        ("[board]:2222", "b", "host-key-unknown"),
        ("|1|broken|", "board", "host-key-unknown"),
        ("|1|!!|!!", "board", "host-key-unknown"),
    ],
)
def test_names(file, names, asked, answer):
    file.write_text(ONE.line(names))
    assert knows(file, asked) == answer


def test_lines_that_say_nothing(file):
    file.write_text(
        f"\n# board comment\nboard\nboard ssh-ed25519\nboard ssh-ed25519 ***\n\x00\xff\n{ONE.line('board')}"
    )
    assert [entry.line for entry in lookup("board", [file])] == [7]


def test_several_keys_of_one_kind(file):
    file.write_text(ONE.line("board") + TWO.line("board"))
    assert knows(file, "board", ONE) == knows(file, "board", TWO) == "yes"
    assert knows(file, "board", HostKey("ssh-ed25519", b"three")) == "host-key-changed"


def test_revoked_counts_even_when_known(file):
    file.write_text(ONE.line("board") + "@revoked " + ONE.line("*"))
    assert knows(file, "board") == "host-key-revoked"
    assert knows(file, "board", TWO) == "host-key-changed"


def test_authority_vouches_for_nothing(file):
    file.write_text("@cert-authority " + ONE.line("*"))
    assert knows(file, "board") == "host-key-unknown"


def test_second_file_vouches_too(file, tmp_path):
    file.write_text(ONE.line("board"))
    verify("board", ONE, [tmp_path / "missing", file], "board")


def test_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match="known host keys"):
        verify("board", ONE, [tmp_path], "board")


def test_remember_makes_the_file_closed_to_others(tmp_path):
    file = tmp_path / "new" / "known_hosts"
    remember("Board", 2222, ONE, file)
    remember("board", 2222, ONE, file)
    assert file.read_text() == ONE.line("[board]:2222")
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_remember_after_a_line_without_end(file):
    file.write_text(ONE.line("a").rstrip("\n"))
    remember("b", 22, TWO, file)
    assert file.read_text() == ONE.line("a") + TWO.line("b")


def test_remember_where_nothing_can_be_written(tmp_path):
    with pytest.raises(UsageError, match="remember"):
        remember("b", 22, ONE, tmp_path)
    with pytest.raises(UsageError, match="remember"):
        remember("b", 22, ONE, tmp_path / "file" / "x" if (tmp_path / "file").write_text("") == 0 else tmp_path)


def test_many_remember_at_once(file):
    threads = [threading.Thread(target=remember, args=(f"host{number}", 22, ONE, file)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(file.read_text().splitlines(keepends=True)) == sorted(ONE.line(f"host{n}") for n in range(20))


def test_openssh_agrees_on_fingerprint_and_hash(file, tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    kind, text = (tmp_path / "key.pub").read_text().split()[:2]
    file.write_text(f"[10.0.0.7]:2222,board {kind} {text}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", file], check=True, capture_output=True)
    (entry,) = lookup("[10.0.0.7]:2222", [file])
    shown = subprocess.run(["ssh-keygen", "-lf", tmp_path / "key.pub"], check=True, capture_output=True, text=True)
    assert entry.key.fingerprint == shown.stdout.split()[1]
    assert lookup("board", [file])
    assert not lookup("other", [file])


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_any_text_is_read(tmp_path_factory, text):
    file = tmp_path_factory.mktemp("any") / "known_hosts"
    file.write_bytes(text.encode() + b"\n" + ONE.line("board").encode())
    assert any(entry.key == ONE for entry in lookup("board", [file]))


def test_known_name():
    assert known_name("Board", 22) == "board"
    assert known_name("::1", 2222) == "[::1]:2222"
