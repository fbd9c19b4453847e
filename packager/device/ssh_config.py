"""What an address means: `[user@]host[:port]` or an alias, resolved by the user's ssh_config as OpenSSH would."""

from __future__ import annotations

import dataclasses
import getpass
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import UsageError
from packager.device.host_keys import DEFAULT_PORT, known_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_SYSTEM_FOLDER = Path("/etc/ssh")
_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
_MAX_DEPTH = 16  # OpenSSH's own limit for Include
_MAX_HOPS = 8
_MAX_PORT = 65535
_WORD = re.compile(r"^\s*(\w+)(?:\s*=\s*|\s+)(.*?)\s*$")


@dataclasses.dataclass(frozen=True)
class Address:
    """One SSH server, everything known that connecting takes.

    `text` is what the user wrote; `known_hosts` are the files that may vouch for it under the name `key_name`, a new
    key is written to the first of them; `jumps` are the servers to go through, the nearest first.
    """

    text: str
    host: str
    port: int
    user: str
    identities: tuple[Path, ...] = ()
    identities_only: bool = False
    known_hosts: tuple[Path, ...] = ()
    key_name: str = ""
    jumps: tuple[Address, ...] = ()


def split_address(text: str) -> tuple[str, str, int | None]:
    """User ("" for none), host and port of `[user@]host[:port]`; an IPv6 address with a port stands in brackets.

    Raises UsageError, code "bad-address".
    """
    user, at, rest = text.removeprefix("ssh://").rpartition("@")
    if rest.startswith("["):
        host, bracket, port = rest[1:].partition("]")
        good = bool(bracket) and (not port or (port.startswith(":") and port != ":"))
        port = port[1:]
    elif rest.count(":") > 1:  # a bare IPv6 address
        host, port, good = rest, "", True
    else:
        host, colon, port = rest.partition(":")
        good = not colon or bool(port)
    number = int(port) if port.isascii() and port.isdigit() else None
    if port and (number is None or not 0 < number <= _MAX_PORT):
        raise _bad(text, f"{port!r} is not a port")
    # A leading "-" would be an option to tools that take the address; blanks and controls are in no name.
    wrong = not good or not host or (at and not user) or host.startswith("-") or user.startswith("-")
    if wrong or not (host + user).isprintable() or " " in host + user or "/" in host:
        raise _bad(text, "it does not have that form")
    return user, host, number


def resolve(text: str, config: Sequence[Path] | None = None) -> Address:
    """The server that `text` names. `config` are ssh_config files, by default the user's and the system's.

    Raises UsageError: "bad-address", "ssh-config", "jump-loop".
    """
    return _resolve(text, default_config() if config is None else config, (), via_config=True)


def is_alias(text: str, config: Sequence[Path] | None = None) -> bool:
    """Whether a Host line of the ssh_config names `text` itself, not by a pattern."""
    for line in _lines(default_config() if config is None else config, text):
        match = _WORD.match(line)
        if match and match[1].lower() == "host" and text in _words(match[2], "ssh_config"):
            return True
    return False


def default_config() -> list[Path]:
    """The user's ssh_config and the system's. The home folder is that of the environment."""
    return [Path.home() / ".ssh" / "config", _SYSTEM_FOLDER / "ssh_config"]


def _resolve(text: str, config: Sequence[Path], seen: tuple[str, ...], *, via_config: bool) -> Address:
    if text in seen or len(seen) >= _MAX_HOPS:
        path = " -> ".join((*seen, text))
        raise UsageError(f"ProxyJump goes in a circle or too far: {path}", code="jump-loop")
    user, alias, port = split_address(text)
    options = _options(alias, config)
    host = str(options.get("hostname", alias))
    number = port if port is not None else _port(options.get("port", DEFAULT_PORT), alias)
    jumps = _jumps(options, config, (*seen, text)) if via_config else ()
    files = [name for key in ("userknownhostsfile", "globalknownhostsfile") for name in _known_hosts(key, options)]
    key_alias = options.get("hostkeyalias")
    return Address(
        text=text,
        host=host,
        port=number,
        user=user or str(options.get("user", "")) or _own_name(),
        identities=_identities(options),
        identities_only=str(options.get("identitiesonly", "no")).lower() == "yes",
        known_hosts=tuple(files),
        key_name=str(key_alias).lower() if key_alias else known_name(host, number),
        jumps=jumps,
    )


def _options(alias: str, config: Sequence[Path]) -> Mapping[str, Any]:
    import paramiko

    try:
        parsed = paramiko.SSHConfig.from_text("\n".join(_lines(config, alias)))
        options: Mapping[str, Any] = parsed.lookup(alias)
    except (paramiko.SSHException, ImportError, OSError, ValueError, KeyError) as error:
        raise UsageError(f"the ssh_config cannot be read: {error}", where=_shown(config), code="ssh-config") from error
    command = options.get("proxycommand")
    if command and not options.get("proxyjump"):
        raise UsageError(
            f"{alias} is reached by a ProxyCommand, which is not supported",
            where=_shown(config),
            fix="use ProxyJump for it",
            code="ssh-config",
        )
    return options


def _lines(config: Sequence[Path], alias: str) -> Iterator[str]:
    """The lines of all files with Include expanded, which paramiko does not do."""
    for file in config:
        yield "Host *"  # a block of one file does not go on in the next
        yield from _expand(file, alias, 0)


def _expand(file: Path, alias: str, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise UsageError(f"Include is nested deeper than {_MAX_DEPTH}", where=str(file), code="ssh-config")
    try:
        text = file.read_text("utf-8", "surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UsageError(f"the ssh_config cannot be read: {error}", where=str(file), code="ssh-config") from error
    block = "Host *"
    for line in text.split("\n"):
        match = _WORD.match(line)
        word = match[1].lower() if match else ""
        if match and word == "include":
            if _applies(block, alias):  # in a block for others an Include is not even looked at
                for name in _words(match[2], str(file)):
                    for included in _glob(name, file):
                        yield block
                        yield from _expand(included, alias, depth + 1)
            yield block
            continue
        if word in {"host", "match"}:
            block = line
        yield line


def _applies(block: str, alias: str) -> bool:
    """Whether a Host or Match line is about `alias`: paramiko is asked, by an option that only this block sets."""
    import paramiko

    probe = paramiko.SSHConfig.from_text(f"{block}\nedgepackprobe yes\n")
    try:
        return "edgepackprobe" in probe.lookup(alias)
    except (paramiko.SSHException, ImportError, OSError, ValueError, KeyError) as error:
        raise UsageError(f"cannot evaluate {block.strip()!r}: {error}", code="ssh-config") from error


def _glob(name: str, file: Path) -> list[Path]:
    """The files that an Include means: relative ones lie beside the user's or the system's configuration."""
    base = _SYSTEM_FOLDER if file.is_relative_to(_SYSTEM_FOLDER) else Path.home() / ".ssh"
    path = base / Path(name).expanduser()
    return sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))


def _jumps(options: Mapping[str, Any], config: Sequence[Path], seen: tuple[str, ...]) -> tuple[Address, ...]:
    value = str(options.get("proxyjump") or "none")
    if value.lower() == "none":
        return ()
    hops = [hop.strip() for hop in value.split(",")]
    # Only the first hop is reached by its own ProxyJump; the list itself says how to reach the others.
    resolved = [_resolve(hop, config, seen, via_config=index == 0) for index, hop in enumerate(hops)]
    return (*resolved[0].jumps, dataclasses.replace(resolved[0], jumps=()), *resolved[1:])


def _identities(options: Mapping[str, Any]) -> tuple[Path, ...]:
    named = options.get("identityfile")
    if named:
        return tuple(Path(name).expanduser() for name in named if name.lower() != "none")
    folder = Path.home() / ".ssh"
    return tuple(folder / name for name in _DEFAULT_KEYS if (folder / name).is_file())


def _known_hosts(key: str, options: Mapping[str, Any]) -> list[Path]:
    folder = Path.home() / ".ssh" if key.startswith("user") else _SYSTEM_FOLDER
    prefix = "" if key.startswith("user") else "ssh_"
    value = options.get(key)
    if value is None:
        return [folder / f"{prefix}known_hosts", folder / f"{prefix}known_hosts2"]
    names = [name.replace("%d", str(Path.home())) for name in _words(str(value), key)]
    return [Path(name).expanduser() for name in names if name.lower() != "none"]


def _words(text: str, where: str) -> list[str]:
    try:
        return shlex.split(text, comments=True)
    except ValueError as error:
        raise UsageError(f"the ssh_config cannot be read: {error}: {text}", where=where, code="ssh-config") from error


def _port(value: Any, alias: str) -> int:
    if str(value).isascii() and str(value).isdigit() and 0 < int(value) <= _MAX_PORT:
        return int(value)
    raise UsageError(f"the ssh_config has the port {value!r} for {alias}", code="ssh-config")


def _own_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise UsageError("no user name is known to log in with", fix="write USER@HOST", code="bad-address") from error


def _shown(config: Sequence[Path]) -> str:
    return ", ".join(str(file) for file in config if file.exists())


def _bad(text: str, why: str) -> UsageError:
    return UsageError(
        f"{text!r} is not the address of a device: {why}",
        expected="local, a registered name, an alias of the ssh_config, or [user@]host[:port]",
        code="bad-address",
    )
