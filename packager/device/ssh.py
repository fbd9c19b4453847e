"""A device behind SSH: commands and copies over one connection, each with limits, and a lost link is known as such."""

from __future__ import annotations

import contextlib
import io
import threading
from typing import TYPE_CHECKING, Any

from agent.contract.errors import DeviceError, EdgepackError, TransientDeviceError, UsageError
from packager.device.commands import CommandTransport
from packager.device.ssh_connect import CONNECT_TIMEOUT, LINK_TIMEOUT, Link, connect
from packager.device.transport import (
    INTERRUPT_GRACE,
    PIECE,
    Consumer,
    Readable,
    Tail,
    Watch,
    command_line,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from packager.device.ssh_config import Address
    from packager.device.ssh_connect import Dial

_SLICE = 0.2  # seconds between looks at standard error and at the limits while standard output is silent
_CLOSE_GRACE = 1.0
_LOST_GRACE = 1.0
_NO_STATUS = -1


class SshTransport(CommandTransport):
    """A device at an SSH address; connects when first used, and again after the link was lost.

    `dial` opens the socket, for links that are not plain TCP.
    """

    def __init__(
        self,
        address: Address,
        python: str = "python3",
        name: str = "",
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
        link_timeout: float = LINK_TIMEOUT,
        dial: Dial | None = None,
    ) -> None:
        super().__init__(python, name or address.text)
        self.address = address
        self._connect_timeout, self._link_timeout, self._dial = connect_timeout, link_timeout, dial
        self._link: Link | None = None
        self._lock = threading.Lock()

    def connect(self) -> None:
        """Connects now, so that what is wrong shows now; see ssh_connect.connect for what it raises."""
        self._connected(self._connect_timeout)

    def close(self) -> None:
        """Ends the connection; never raises."""
        super().close()
        with self._lock:
            link, self._link = self._link, None
        if link is not None:
            link.close()

    def _connected(self, timeout: float) -> Link:
        with self._lock:
            if self._link is not None and not self._link.transport.is_active():
                self._link.close()
                self._link = None
            if self._link is None:
                self._link = connect(self.address, timeout=timeout, link_timeout=self._link_timeout, dial=self._dial)
            return self._link

    def _execute(
        self,
        argv: Sequence[str],
        stdin: bytes | Readable,
        consumer: Consumer,
        watch: Watch,
        on_interrupt: bytes | None = None,
    ) -> tuple[int, bytes]:
        command = command_line(argv)
        watch.interrupted = self._interrupted
        watch.check()
        link = self._connected(max(0.1, watch.left(self._connect_timeout)))
        try:
            return self._exchange(link, command, stdin, consumer, watch, on_interrupt)
        except TransientDeviceError as error:
            if error.code == "link-lost":
                self._forget(link)
            raise

    def _forget(self, link: Link) -> None:
        """The next command connects anew: paramiko may count a lost link as alive for a moment still."""
        with self._lock:
            if self._link is link:
                self._link = None
        link.close()

    def _exchange(
        self,
        link: Link,
        command: str,
        stdin: bytes | Readable,
        consumer: Consumer,
        watch: Watch,
        on_interrupt: bytes | None,
    ) -> tuple[int, bytes]:
        channel = self._start(link, command, watch)
        exchange = _Exchange(link, channel, stdin, consumer, watch, keep_stdin=on_interrupt is not None)
        try:
            exchange.pump()
        except KeyboardInterrupt:
            if on_interrupt is not None:
                exchange.interrupt(on_interrupt)
            raise
        finally:
            exchange.close()
        return exchange.status, exchange.stderr.value()

    def _start(self, link: Link, command: str, watch: Watch) -> Any:
        """A channel on which `command` runs. paramiko waits without end for the device's yes: the timer is that end."""
        import paramiko

        expired = threading.Event()

        def expire() -> None:
            expired.set()
            link.close()

        timer = threading.Timer(max(0.1, watch.left(self._connect_timeout)), expire)
        timer.daemon = True
        timer.start()
        try:
            channel = link.transport.open_session(timeout=self._connect_timeout)
            channel.exec_command(command)
        except (paramiko.SSHException, EOFError, OSError) as error:
            if expired.is_set():
                watch.check()
                raise TransientDeviceError(f"{self.name} does not answer", fix="try again", code="link-lost") from error
            # A connection that breaks at this moment may show here before paramiko counts it as over.
            if isinstance(error, paramiko.SSHException):
                link.transport.join(_LOST_GRACE)
            if not isinstance(error, paramiko.SSHException) or not link.transport.is_active():
                raise link_lost(watch.what) from error
            raise DeviceError(
                f"{self.name} does not run commands for {self.address.user!r}: {error}",
                fix="see the device's sshd_config (ForceCommand, MaxSessions) and the key's options",
                code="exec-refused",
            ) from error
        finally:
            timer.cancel()
        return channel


def link_lost(what: str) -> TransientDeviceError:
    """The error for a command whose end nobody saw."""
    return TransientDeviceError(
        f"the link was lost during {what}",
        expected="the command's exit status",
        fix="check the network and the device's power, then try again",
        code="link-lost",
    )


class _Exchange:
    """Moves a channel's streams: standard input in a thread of its own, the others here."""

    def __init__(
        self,
        link: Link,
        channel: Any,
        stdin: bytes | Readable,
        consumer: Consumer,
        watch: Watch,
        *,
        keep_stdin: bool,
    ) -> None:
        self._link, self._channel, self._consumer, self._watch = link, channel, consumer, watch
        self._keep_stdin = keep_stdin
        self.stderr = Tail()
        self.status = _NO_STATUS
        self._fault: OSError | None = None
        self._stopped = threading.Event()
        source: Readable = io.BytesIO(stdin) if isinstance(stdin, bytes) else stdin
        self._feeder = threading.Thread(target=self._feed, args=(source,), daemon=True)
        self._feeder.start()

    def pump(self) -> None:
        """Moves bytes until the command has ended. Raises TransientDeviceError at a limit or when the link is lost."""
        while data := self._receive():
            self._consumer.feed(data)
        while not self._channel.status_event.wait(self._watch.left(_SLICE)):
            self._check()
        self._drain_stderr()
        if self._channel.exit_status == _NO_STATUS:
            raise link_lost(self._watch.what)
        self.status = self._channel.exit_status
        self._consumer.finish()

    def interrupt(self, message: bytes) -> None:
        """Sends `message` and gives the command a little time to end in good order."""
        if self._feeder.is_alive():
            return  # these bytes would be taken for a part of the input that is still being sent
        self._watch = Watch(self._watch.what, INTERRUPT_GRACE)
        with contextlib.suppress(EdgepackError, OSError):  # the interrupt that goes on says more
            self._channel.settimeout(INTERRUPT_GRACE)
            self._channel.sendall(message)
            self.pump()

    def close(self) -> None:
        """Closes the channel; a command that still runs gets SIGTERM first. A link that is stuck is closed."""
        self._stopped.set()
        closer = threading.Thread(target=self._close_channel, daemon=True)
        closer.start()
        closer.join(_CLOSE_GRACE)
        if closer.is_alive():
            self._link.close()
        self._feeder.join(_CLOSE_GRACE)

    def _receive(self) -> bytes:
        """The next piece of standard output, empty at its end."""
        while True:
            self._check()
            self._channel.settimeout(max(0.01, self._watch.left(_SLICE)))
            try:
                data: bytes = self._channel.recv(PIECE)
            except TimeoutError:
                self._drain_stderr()
                continue
            self._watch.touch()
            self._drain_stderr()
            return data

    def _check(self) -> None:
        self._watch.check()
        if self._fault is not None:
            raise UsageError(f"cannot read what is to be sent: {self._fault}", code="no-file") from self._fault

    def _drain_stderr(self) -> None:
        while self._channel.recv_stderr_ready():
            data = self._channel.recv_stderr(PIECE)
            if not data:
                return
            self._watch.touch()
            self.stderr.feed(data)

    def _feed(self, source: Readable) -> None:
        """Sends standard input. What fails on the channel shows in its status; what fails in reading is kept."""
        while not self._stopped.is_set():
            try:
                data = source.read(PIECE)
            except OSError as error:
                self._fault = error
                return
            if not data or not self._send(data):
                break
        if not self._keep_stdin:
            with contextlib.suppress(OSError, EOFError):
                self._channel.shutdown_write()

    def _send(self, data: bytes) -> bool:
        """Whether all of `data` went out."""
        view = memoryview(data)
        while view and not self._stopped.is_set():
            try:
                sent = self._channel.send(view)
            except TimeoutError:
                continue  # the device takes no more just now; the watch decides how long that may last
            except (OSError, EOFError):
                return False
            if not sent:
                return False
            self._watch.touch()
            view = view[sent:]
        return not view

    def _close_channel(self) -> None:
        import paramiko

        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            if self.status == _NO_STATUS:
                _send_signal(self._channel, "TERM")
            self._channel.close()


def _send_signal(channel: Any, name: str) -> None:
    """Asks the server to signal the command (RFC 4254, 6.9), for which paramiko has no call.

    Under the channel's lock, since a request on a channel that is closed meanwhile makes the server end the connection.
    """
    from paramiko import Message
    from paramiko.common import cMSG_CHANNEL_REQUEST

    message = Message()
    message.add_byte(cMSG_CHANNEL_REQUEST)
    message.add_int(channel.remote_chanid)
    message.add_string("signal")
    message.add_boolean(False)
    message.add_string(name)
    with channel.lock:
        if not channel.closed:
            channel.transport._send_user_message(message)  # noqa: SLF001
