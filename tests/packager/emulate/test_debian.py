"""What was fetched once is found again, and only while it is whole."""

import pytest

from packager.emulate.debian import lock, locked, request_key


@pytest.fixture
def fetched(tmp_path):
    scratch, folder = tmp_path / "scratch", tmp_path / "debs"
    scratch.mkdir()
    files = [scratch / "b.deb", scratch / "a.deb"]
    for path in files:
        path.write_bytes(path.name.encode())
    lock(folder, "key", files)
    return folder


def test_locked_files_are_found_again(fetched):
    assert [path.name for path in locked(fetched, "key")] == ["a.deb", "b.deb"]
    assert all(path.read_bytes() == path.name.encode() for path in locked(fetched, "key"))


def test_unknown_key(fetched):
    assert locked(fetched, "other") is None


def test_a_file_has_changed(fetched):
    (fetched / "a.deb").write_bytes(b"x")
    assert locked(fetched, "key") is None


def test_a_file_is_gone(fetched):
    (fetched / "a.deb").unlink()
    assert locked(fetched, "key") is None


def test_the_lock_itself_is_broken(fetched):
    (fetched / "key.lock").write_text("{")
    assert locked(fetched, "key") is None


def test_keys_follow_what_was_asked():
    assert request_key("debs", "bookworm", ["a", "b"]) == request_key("debs", "bookworm", ["a", "b"])
    assert request_key("debs", "bookworm", ["a", "b"]) != request_key("debs", "bookworm", ["a", "c"])
