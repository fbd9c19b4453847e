"""What an address means, checked against `ssh -G` where OpenSSH can say it."""

import subprocess

import pytest

from agent.contract.errors import UsageError
from packager.device import ssh_config
from packager.device.ssh_config import is_alias, resolve, split_address


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USER", "me")
    monkeypatch.setenv("LOGNAME", "me")
    monkeypatch.setattr(ssh_config, "_SYSTEM_FOLDER", tmp_path / "etc")
    (tmp_path / ".ssh").mkdir()
    return tmp_path


def write(home, text, name="config"):
    path = home / ".ssh" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("orin", ("", "orin", None)),
        ("me@orin:2222", ("me", "orin", 2222)),
        ("me@10.0.0.7", ("me", "10.0.0.7", None)),
        ("[::1]:2222", ("", "::1", 2222)),
        ("me@[fe80::1%eth0]", ("me", "fe80::1%eth0", None)),
        ("fe80::1", ("", "fe80::1", None)),
        ("a@b@host", ("a@b", "host", None)),
        ("ssh://me@orin:22", ("me", "orin", 22)),
    ],
)
def test_addresses(text, parts):
    assert split_address(text) == parts


@pytest.mark.parametrize(
    "text",
    ["", "@host", "me@", "host:", "host:0", "host:65536", "host:x", "host:-1", "[::1", "[::1]:", "[::1]x", "[]:22", "a b",
     "-oProxyCommand=x", "-x@host", "me@-x", "a\nb", "host:\u0662", "a/b", "\x1b[2J"],
)  # fmt: skip
def test_what_is_no_address(text):
    with pytest.raises(UsageError) as caught:
        split_address(text)
    assert caught.value.code == "bad-address"


def test_defaults(home):
    (home / ".ssh/id_ed25519").touch()
    address = resolve("orin")
    assert (address.host, address.port, address.user, address.key_name, address.jumps) == ("orin", 22, "me", "orin", ())
    assert address.identities == (home / ".ssh/id_ed25519",)
    assert address.known_hosts[0] == home / ".ssh/known_hosts"


def test_alias_and_what_the_address_says_itself(home):
    write(
        home,
        "Host kitchen\n HostName 10.0.0.7\n Port 2222\n User orin\n IdentityFile ~/.ssh/k1\n IdentityFile %d/.ssh/k2\n"
        " IdentitiesOnly yes\n UserKnownHostsFile ~/.ssh/lab ~/.ssh/lab2\n",
    )
    address = resolve("kitchen")
    assert (address.host, address.port, address.user) == ("10.0.0.7", 2222, "orin")
    assert address.key_name == "[10.0.0.7]:2222"
    assert address.identities == (home / ".ssh/k1", home / ".ssh/k2")
    assert address.identities_only
    assert address.known_hosts[:2] == (home / ".ssh/lab", home / ".ssh/lab2")
    own = resolve("me@kitchen:22")
    assert (own.host, own.port, own.user, own.key_name) == ("10.0.0.7", 22, "me", "10.0.0.7")


def test_host_key_alias(home):
    write(home, "Host a\n HostKeyAlias Board-7\n Port 99\n")
    assert resolve("a").key_name == "board-7"


def test_include(home):
    write(home, "Include conf.d/*.conf\nHost late\n User late\n")
    write(home, "Host one\n User first\n", "conf.d/1.conf")
    write(home, "Host one\n User second\n Port 7\nHost two\n User two\n", "conf.d/2.conf")
    assert (resolve("one").user, resolve("one").port) == ("first", 7)
    assert resolve("two").user == "two"
    assert resolve("late").user == "late"
    assert is_alias("two")
    assert not is_alias("three")


def test_include_inside_a_block_counts_for_that_block_only(home):
    write(home, "Host one\n Include extra\n Port 8\nHost *\n User all\n")
    write(home, "User inner\nHost other\n User other\n", "extra")
    assert (resolve("one").user, resolve("one").port) == ("inner", 8)
    assert resolve("two").user == "all"
    assert resolve("other").user == "all"  # as OpenSSH: the file is not read for hosts that the block is not about


def test_include_that_is_absolute_quoted_or_missing(home):
    path = write(home, "Host one\n User x\n", "my file")
    write(home, f'Include "{path}" ~/nothing/*\n')
    assert resolve("one").user == "x"


def test_include_in_a_circle(home):
    write(home, "Include config\n")
    with pytest.raises(UsageError, match="Include is nested"):
        resolve("x")


def test_system_configuration_comes_second(home):
    write(home, "Host one\n User mine\n")
    system = home / "etc/ssh_config"
    system.parent.mkdir()
    system.write_text("User theirs\nPort 77\n")
    assert (resolve("one").user, resolve("one").port) == ("mine", 77)
    assert resolve("two").user == "theirs"


def test_jumps_in_order(home):
    write(home, "Host board\n ProxyJump gate,me@b:2222\nHost gate\n ProxyJump outer\nHost b\n ProxyJump never\n")
    address = resolve("board")
    assert [(jump.host, jump.port) for jump in address.jumps] == [("outer", 22), ("gate", 22), ("b", 2222)]
    assert all(jump.jumps == () for jump in address.jumps)


def test_jump_none(home):
    write(home, "Host board\n ProxyJump none\nHost *\n ProxyJump gate\n")
    assert resolve("board").jumps == ()


def test_jumps_in_a_circle(home):
    write(home, "Host a\n ProxyJump b\nHost b\n ProxyJump a\n")
    with pytest.raises(UsageError) as caught:
        resolve("a")
    assert caught.value.code == "jump-loop"


@pytest.mark.parametrize(
    "text", ["Host a\n Port zero\n", "Host a\n ProxyCommand nc %h\n", "\n!!\n", 'Include "a\n', "Host a\n Port 70000\n"]
)
def test_configuration_that_cannot_be_used(home, text):
    write(home, text)
    with pytest.raises(UsageError) as caught:
        resolve("a")
    assert caught.value.code == "ssh-config"


def test_configuration_that_is_a_folder(home):
    (home / ".ssh/config").mkdir()
    with pytest.raises(UsageError, match="cannot be read"):
        resolve("a")


def test_openssh_agrees(home):
    path = write(
        home,
        "Host *.lab !bad.lab\n User lab\n Port 2200\nHost board.lab\n HostName 10.1.1.1\n Port 9\n"
        f"Include {home}/.ssh/more\nHost *\n User any\n",
    )
    write(home, "Host x? 10.*\n User inc\n Port 44\n", "more")
    for name in ("board.lab", "bad.lab", "a.lab", "x1", "10.2.3.4", "other"):
        said = subprocess.run(["ssh", "-F", path, "-G", name], check=True, capture_output=True, text=True).stdout
        options = dict(line.split(" ", 1) for line in said.splitlines() if " " in line)
        address = resolve(name, [path])
        assert (address.host, str(address.port), address.user) == (
            options["hostname"],
            options["port"],
            options["user"],
        )
