"""From an address to an authenticated SSH connection: the socket, the jumps, the host key, the login.

The socket is our own, because the SSH library leaves Nagle's algorithm on (52 ms for a command that takes 6) and never
notices a link that was cut in the middle of a write; TCP_USER_TIMEOUT does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract.errors import DeviceError, TransientDeviceError, UsageError
from packager.device import host_keys
from packager.device.bootstrap import printable
from packager.device.host_keys import HostKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import paramiko

    from packager.device.ssh_config import Address

    # Opens the socket to a host and port within so many seconds.
    Dial = Callable[[str, int, float], socket.socket]

CONNECT_TIMEOUT = 15.0  # seconds, for each of: the socket, the handshake, a login
# A link on which nothing is acknowledged for so long is lost. Long enough for a Wi-Fi that comes back.
LINK_TIMEOUT = 30.0
_KEEP_ALIVE = 15
_WINDOW = 4 << 20
_PACKET = 32768
# AES-GCM first: paramiko's own order begins with CTR and a separate MAC, which copies 20 to 50 % slower.
_FAST_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
_RSA_SIGNATURES = ("rsa-sha2-512", "rsa-sha2-256")


@dataclasses.dataclass
class Link:
    """An authenticated connection, and those to the jump hosts that carry it."""

    address: Address
    transport: paramiko.Transport
    carriers: list[paramiko.Transport]

    def close(self) -> None:
        """Ends all of it; never raises."""
        for transport in (self.transport, *reversed(self.carriers)):
            with contextlib.suppress(OSError, EOFError):  # a connection that cannot even be closed is gone
                transport.close()


def connect(
    address: Address,
    *,
    timeout: float = CONNECT_TIMEOUT,
    link_timeout: float = LINK_TIMEOUT,
    dial: Dial | None = None,
) -> Link:
    """A connection to `address`, every host on the way verified.

    Raises DeviceError ("unknown-host", "host-key-unknown", "host-key-changed", "host-key-revoked", "auth", "not-ssh")
    and TransientDeviceError ("unreachable").
    """
    carriers: list[paramiko.Transport] = []
    try:
        for hop in (*address.jumps, address):
            transport = _reach(hop, carriers, timeout, link_timeout, dial)
            carriers.append(transport)
            host_keys.verify(hop.key_name, _shown_key(transport), hop.known_hosts, hop.text)
            _log_in(transport, hop)
            transport.set_keepalive(_KEEP_ALIVE)
    except BaseException:
        for transport in reversed(carriers):
            transport.close()
        raise
    return Link(address, carriers.pop(), carriers)


def scan_host_key(
    address: Address, *, timeout: float = CONNECT_TIMEOUT, link_timeout: float = LINK_TIMEOUT, dial: Dial | None = None
) -> HostKey:
    """The key that `address` shows, not verified; the hosts on the way are. Raises as `connect`, without logging in."""
    carriers: list[paramiko.Transport] = []
    last: Link | None = None
    try:
        if address.jumps:
            nearest = dataclasses.replace(address.jumps[-1], jumps=address.jumps[:-1])
            last = connect(nearest, timeout=timeout, link_timeout=link_timeout, dial=dial)
            carriers.append(last.transport)
        transport = _reach(address, carriers, timeout, link_timeout, dial)
        try:
            return _shown_key(transport)
        finally:
            transport.close()
    finally:
        if last is not None:
            last.close()


def trust_on_first_use(
    address: Address, accept: Callable[[Address, HostKey], bool], *, timeout: float = CONNECT_TIMEOUT
) -> None:
    """Asks `accept` about each unknown host key on the way, nearest first, and remembers those it says yes to.

    Raises as `connect`: a key that was refused is unknown, a changed or revoked one is never asked about.
    """
    chain = (*address.jumps, address)
    for index, hop in enumerate(chain):
        key = scan_host_key(dataclasses.replace(hop, jumps=chain[:index]), timeout=timeout)
        try:
            host_keys.verify(hop.key_name, key, hop.known_hosts, hop.text)
        except DeviceError as error:
            if error.code != "host-key-unknown" or not accept(hop, key):
                raise
            if not hop.known_hosts:
                raise UsageError(
                    "UserKnownHostsFile is none: the key cannot be remembered", code="ssh-config"
                ) from error
            host_keys.remember_name(hop.key_name, key, hop.known_hosts[0])


def _reach(
    hop: Address, carriers: list[paramiko.Transport], timeout: float, link_timeout: float, dial: Dial | None
) -> paramiko.Transport:
    """An SSH connection to `hop`, keys agreed on, nobody verified yet."""
    if carriers:
        return _handshake(_tunnel(carriers[-1], hop, timeout), hop, timeout)
    with _network_errors(hop):
        sock = (dial or socket_to)(hop.host, hop.port, timeout)
        _tune(sock, link_timeout)
    return _handshake(sock, hop, timeout)


def socket_to(host: str, port: int, timeout: float) -> socket.socket:
    """A TCP connection. Raises OSError."""
    return socket.create_connection((host, port), timeout)


def _tune(sock: socket.socket, link_timeout: float) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    probe = max(1, int(link_timeout / 3))
    for name, value in (
        ("TCP_KEEPIDLE", probe),
        ("TCP_KEEPINTVL", max(1, probe // 2)),
        ("TCP_KEEPCNT", 4),
        ("TCP_USER_TIMEOUT", int(link_timeout * 1000)),
    ):
        option = getattr(socket, name, None)  # not every system has them
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


@contextlib.contextmanager
def _network_errors(hop: Address) -> Iterator[None]:
    where = f"{hop.host}, port {hop.port}"
    try:
        yield
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else "that is no host name"
        raise DeviceError(
            f"the host of {hop.text} is not known: {reason}",
            where=where,
            expected="local, a registered name (edgepack devices list), an ssh_config alias or [user@]host[:port]",
            fix="check the spelling, and that the name resolves from here",
            code="unknown-host",
        ) from error
    except OSError as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise _unreachable(hop, reason) from error


def _unreachable(hop: Address, reason: str) -> TransientDeviceError:
    return TransientDeviceError(
        f"{hop.text} cannot be reached: {reason}",
        where=f"{hop.host}, port {hop.port}",
        fix="check that the device is on and its SSH server runs",
        code="unreachable",
    )


def _tunnel(carrier: paramiko.Transport, hop: Address, timeout: float) -> socket.socket:
    """A channel through `carrier` that behaves as a socket to `hop`."""
    import paramiko

    try:
        channel: Any = carrier.open_channel("direct-tcpip", (hop.host, hop.port), ("127.0.0.1", 0), timeout=timeout)
    except paramiko.ChannelException as error:
        prohibited = 1
        if error.code == prohibited:
            raise DeviceError(
                f"the jump host does not let us through to {hop.text}",
                where=f"{hop.host}, port {hop.port}",
                fix="allow TCP forwarding there (AllowTcpForwarding in its sshd_config)",
                code="jump-refused",
            ) from error
        raise _unreachable(hop, f"the jump host says: {printable(error.text.encode('utf-8', 'replace'))}") from error
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise _unreachable(hop, f"the jump host failed: {error}") from error
    return channel  # type: ignore[no-any-return]  # it has a socket's methods, as paramiko asks of one


def _handshake(sock: socket.socket, hop: Address, timeout: float) -> paramiko.Transport:
    import paramiko

    try:
        transport = _transport_class()(sock, default_window_size=_WINDOW, default_max_packet_size=_PACKET)
        transport.banner_timeout = transport.handshake_timeout = timeout
        transport.auth_timeout = transport.channel_timeout = timeout
        _prefer(transport, hop)
        done = threading.Event()
        transport.start_client(event=done)
    except BaseException:
        sock.close()
        raise
    finished = done.wait(timeout)
    if finished and transport.is_active():
        return transport
    error = transport.get_exception()
    transport.close()
    if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
        what = f"{hop.text} speaks only algorithms that are too old: {printable(str(error).encode())}"
        raise DeviceError(what, fix="update the SSH server on the device", code="not-ssh") from error
    if error is not None and ("Indecipherable" in str(error) or "Invalid SSH banner" in str(error)):
        raise DeviceError(
            f"what answers at {hop.text} is no SSH server",
            where=f"{hop.host}, port {hop.port}: {printable(str(error).encode('utf-8', 'replace'), 200)}",
            fix="check the port",
            code="not-ssh",
        ) from error
    reason = "no answer in time" if not finished or _is_timeout(error) else f"it hung up ({error or 'no reason given'})"
    raise _unreachable(hop, reason) from error


def _is_timeout(error: BaseException | None) -> bool:
    return isinstance(error, TimeoutError) or "timed out" in str(error)


@functools.cache
def _transport_class() -> type[paramiko.Transport]:
    """Paramiko's Transport, which forgets the signal that killed a command; ours gives 128 + N, as a shell does."""
    import paramiko
    from paramiko.common import MSG_CHANNEL_REQUEST

    # paramiko logs each failure that it also raises; without a handler Python would print that on standard error.
    logging.getLogger("paramiko").addHandler(logging.NullHandler())

    def on_request(channel: Any, message: Any) -> None:
        start = message.packet.tell()
        if message.get_text() == "exit-signal":
            message.get_boolean()
            name = "SIG" + message.get_text()
            channel.exit_status = 128 + (signal.Signals[name] if name in signal.Signals.__members__ else 0)
        message.packet.seek(start)
        channel._handle_request(message)  # noqa: SLF001  # the handler that this one stands before

    base: Any = paramiko.Transport
    table = {**base._channel_handler_table, MSG_CHANNEL_REQUEST: on_request}  # noqa: SLF001
    kind: type[paramiko.Transport] = type("Transport", (base,), {"_channel_handler_table": table})
    return kind


def _prefer(transport: paramiko.Transport, hop: Address) -> None:
    """Fast ciphers first; and the kinds of host key that are known first, or a known device would look unknown."""
    options: Any = transport.get_security_options()
    fast = [name for name in _FAST_CIPHERS if name in options.ciphers]
    options.ciphers = tuple(fast) + tuple(name for name in options.ciphers if name not in fast)
    known: list[str] = []
    for entry in host_keys.lookup(hop.key_name, hop.known_hosts):
        if not entry.marker:
            known += _RSA_SIGNATURES if entry.key.kind == "ssh-rsa" else (entry.key.kind,)
    first = [name for name in dict.fromkeys(known) if name in options.key_types]
    options.key_types = tuple(first) + tuple(name for name in options.key_types if name not in first)


def _shown_key(transport: paramiko.Transport) -> HostKey:
    key = transport.get_remote_server_key()
    return HostKey(key.get_name(), key.asbytes())


def _log_in(transport: paramiko.Transport, hop: Address) -> None:
    """Offers the keys one by one. Raises DeviceError, code "auth", or TransientDeviceError."""
    import paramiko

    notes: list[str] = []
    agent = _agent(notes)
    try:
        for name, key in _keys(hop, agent, notes):
            try:
                more = transport.auth_publickey(hop.user, key)
            except paramiko.BadAuthenticationType as error:
                kinds = ", ".join(error.allowed_types)
                notes.append(f"the device takes no keys, only: {printable(kinds.encode())}")
                break
            except (paramiko.SSHException, EOFError, OSError) as error:
                if not transport.is_active() and not notes:
                    raise _unreachable(hop, f"the link was lost during the login ({error})") from error
                notes.append(f"{name}: {'refused' if transport.is_active() else 'refused, and the device hung up'}")
                if not transport.is_active():
                    break
                continue
            if not more:
                return
            notes.append(f"{name}: taken, but the device also wants {printable(', '.join(more).encode())}")
            break
    finally:
        if agent is not None:
            agent.close()
    raise DeviceError(
        f"{hop.text} refused the login as {hop.user!r}",
        where="\n".join(notes) or "there is no key to offer, neither in an SSH agent nor in ~/.ssh",
        expected="a login by key (edgepack never asks for a password)",
        fix=f"ssh-copy-id -p {hop.port} {hop.user}@{hop.host}, or ssh-add KEY for an encrypted one",
        code="auth",
    )


def _agent(notes: list[str]) -> paramiko.Agent | None:
    import paramiko

    path = os.environ.get("SSH_AUTH_SOCK", "")
    if not path or not Path(path).is_socket():
        return None
    try:
        return paramiko.Agent()
    except (paramiko.SSHException, OSError) as error:
        notes.append(f"the SSH agent: {error}")
        return None


def _keys(hop: Address, agent: paramiko.Agent | None, notes: list[str]) -> Iterator[tuple[str, Any]]:
    """The keys to offer, with names for messages: the agent's that a file names, files, the agent's others."""
    held: dict[bytes, Any] = {key.asbytes(): key for key in (agent.get_keys() if agent is not None else ())}
    for path in hop.identities:
        blob = _public_blob(path)
        if blob in held:
            yield f"{path} (held by the SSH agent)", held.pop(blob)
            continue
        key = _load(path, notes)
        if key is not None:
            held.pop(key.asbytes(), None)
            yield str(path), key
    if not hop.identities_only:
        for key in held.values():
            yield f"the SSH agent's {key.get_name()}", key


def _public_blob(path: Path) -> bytes | None:
    """What `path`.pub holds, or None: so an encrypted key is found in the agent without being opened."""
    from paramiko.pkey import PublicBlob

    try:
        blob: bytes = PublicBlob.from_file(f"{path}.pub").key_blob
    except (OSError, ValueError):
        return None
    return blob


def _load(path: Path, notes: list[str]) -> Any:
    """The private key in a file, or None with a note."""
    import paramiko

    try:
        return paramiko.PKey.from_path(path)
    except FileNotFoundError:
        notes.append(f"{path}: there is no such file")
    except (paramiko.PasswordRequiredException, TypeError):
        # cryptography says TypeError for an encrypted key without a passphrase
        notes.append(f"{path}: encrypted, and no SSH agent holds it: ssh-add {path}")
    except (paramiko.SSHException, OSError, ValueError, paramiko.pkey.UnknownKeyType) as error:
        notes.append(f"{path}: cannot be read ({error})")
    return None
