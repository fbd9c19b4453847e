"""What runs on a device before the agent is there: three small Python programs, and the reading of their answers.

They are passed whole with `PYTHON -I -c`, so they must run on every Python 3 (3.4 and later): a device whose Python is
too old for the agent then says its version, where a syntax error would say nothing. Each answers with a line of JSON.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from agent.contract.errors import DeviceError, EdgepackError, IntegrityError, TransientDeviceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from packager.protocols import Completed, Transport

# Shared by PUT and GET: an error of the operating system as a line of JSON, and the end.
_FAIL = r"""
import errno, hashlib, json, os, signal, sys, time
CODES = {"no-space": ("ENOSPC", "EDQUOT"), "read-only": ("EROFS",), "permission": ("EACCES", "EPERM"),
         "not-a-folder": ("ENOTDIR", "EEXIST"), "no-file": ("ENOENT",), "is-a-folder": ("EISDIR",)}
def fail(code, text):
    sys.stdout.write(json.dumps({"error": code, "message": text}) + "\n")
    sys.stdout.flush()
    sys.exit(9)
def fail_os(error):
    for code in CODES:
        if error.errno in [getattr(errno, name, None) for name in CODES[code]]:
            fail(code, str(error))
    fail("device-io", str(error))
"""

# Arguments: target, size in bytes, hex sha256. The file comes on standard input. A folder is made where it is missing.
# SIGTERM and SIGHUP become an exit, so that the temporary file goes whatever ends the upload; what a power cut leaves goes
# with the next upload of the same name, once it is a day old and so nobody's.
PUT = (
    _FAIL
    + r"""
def forget(folder, stem):
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if path.startswith(stem) and path.endswith(".part") and os.stat(path).st_mtime < time.time() - 86400:
            os.unlink(path)
def receive(target, size, digest):
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        os.umask(0o77)  # the mode that makedirs takes is the last folder's only
        os.makedirs(folder, exist_ok=True)  # another host may be making it, too
    if hasattr(os, "statvfs"):
        disk = os.statvfs(folder)
        free = disk.f_bavail * disk.f_frsize
        if disk.f_blocks and free < size:
            fail("no-space", "%d bytes are free in %s, %d are needed" % (free, folder, size))
    stem = os.path.join(folder, ".%s." % os.path.basename(target)[:100])
    forget(folder, stem)
    part = stem + "".join("%02x" % byte for byte in bytearray(os.urandom(6))) + ".part"
    out = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        total, got = hashlib.sha256(), 0
        while got < size:
            data = sys.stdin.buffer.read1(min(1 << 18, size - got))
            if not data:
                fail("short", "%d of %d bytes came" % (got, size))
            total.update(data)
            got += len(data)
            view = memoryview(data)
            while view:
                view = view[os.write(out, view):]
        if total.hexdigest() != digest:
            fail("digest", "sha256 is %s, not %s" % (total.hexdigest(), digest))
        os.fsync(out)
        os.replace(part, target)
        part = None
    finally:
        os.close(out)
        if part:
            os.unlink(part)
    above = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(above)
    finally:
        os.close(above)
def stop(number, frame):
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGHUP, stop)
try:
    receive(os.path.abspath(os.path.expanduser(sys.argv[1])), int(sys.argv[2]), sys.argv[3])
except OSError as error:
    fail_os(error)
sys.stdout.write(json.dumps({"put": int(sys.argv[2])}) + "\n")
"""
)

# Argument: the file. Answers {"get": size}, the bytes, {"sha256": ...}: the reader knows from the size where they end.
GET = (
    _FAIL
    + r"""
def send(path):
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        out, total, left = sys.stdout.buffer, hashlib.sha256(), size
        out.write((json.dumps({"get": size}) + "\n").encode())
        while left:
            data = file.read(min(1 << 18, left))
            if not data:
                sys.exit("the file became shorter while it was read")
            total.update(data)
            left -= len(data)
            out.write(data)
        out.write(("\n" + json.dumps({"sha256": total.hexdigest()}) + "\n").encode())
        out.flush()
try:
    send(os.path.expanduser(sys.argv[1]))
except OSError as error:
    fail_os(error)
"""
)

# Arguments: paths to look for.
HELLO = r"""
import json, os, sys
def look(path):
    full = os.path.abspath(os.path.expanduser(path))
    return {"path": full, "exists": os.path.exists(full)}
sys.stdout.write(json.dumps({"python": list(sys.version_info[:3]), "executable": sys.executable or "",
    "home": os.path.expanduser("~"), "paths": dict((path, look(path)) for path in sys.argv[1:])}) + "\n")
"""

# Arguments: the agent's path, a verb. Becomes the agent where it is there, and else says that it is not: one command instead
# of two, since each costs a round trip and the start of an interpreter.
LAUNCH = r"""
import os, sys
path = os.path.abspath(os.path.expanduser(sys.argv[1]))
if sys.version_info >= (3, 8) and sys.executable and os.path.exists(path):
    os.execv(sys.executable, [sys.executable, "-I", path] + sys.argv[2:])
sys.stdout.write('{"type": "absent"}\n')
"""

_MAX_TEXT = 2000
_SHELL_NOT_FOUND = 127
_SHELL_NOT_EXECUTABLE = 126

# What a person can do about each code that PUT and GET answer with.
_FIXES = {
    "no-space": "free some space on the device, or register it with another folder",
    "read-only": "remount the device's file system writable, or choose a folder that is",
    "permission": "log in as a user who may write there, or choose another folder",
    "not-a-folder": "a file stands where a folder is needed: move it away on the device",
    "is-a-folder": "a folder stands where a file is needed: move it away on the device",
    "no-file": "",
    "device-io": "look at the device's storage: `dmesg` there says more",
}


def hello(
    transport: Transport, python: str, paths: Sequence[str] = (), deadline: float | None = 60.0
) -> dict[str, Any]:
    """What HELLO says on the device: `python` (three numbers), `executable`, `home`, and `paths`, which has for
    each path asked for its absolute `path` there and whether it `exists`. Paths may begin with "~/".

    Raises DeviceError; its code is "no-python" where `python` is not there.
    """
    done = transport.run([python, "-I", "-c", HELLO, *paths], deadline=deadline)
    reply = read_reply(done, transport.name, python)
    version, found = reply.get("python"), reply.get("paths")
    if (
        not isinstance(version, list)
        or [type(part) for part in version] != [int, int, int]
        or not all(isinstance(reply.get(name), str) for name in ("executable", "home"))
        or not isinstance(found, dict)
        or not all(_is_found(found.get(path)) for path in paths)
    ):
        raise unasked(transport.name, reply)
    return reply


def _is_found(value: Any) -> bool:
    return isinstance(value, dict) and type(value.get("path")) is str and type(value.get("exists")) is bool


def unasked(device: str, reply: Any) -> DeviceError:
    """The error for an answer that is JSON, but not ours."""
    return DeviceError(f"{device} answered with something else than asked: {short(reply)}", code="reply")


def short(value: Any) -> str:
    """The value's repr, cut to a length that fits in a message."""
    return repr(value)[:200]


def read_reply(done: Completed, device: str, python: str, where: str = "") -> dict[str, Any]:
    """The JSON object on the last line of a snippet's output that looks like one (a login script may print before it).

    Raises the DeviceError, TransientDeviceError or IntegrityError that it describes.
    """
    for line in reversed(done.stdout.splitlines()):
        if line.startswith(b"{"):
            return parse_reply(line, device, where)
    raise no_reply(done.status, done.stderr, device, python)


def parse_reply(line: bytes, device: str, where: str = "") -> dict[str, Any]:
    """One line of JSON from a snippet. Raises the error that it describes, or DeviceError for no object."""
    try:
        reply = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DeviceError(f"{device} answered with broken JSON: {short(line)}", code="reply") from error
    if not isinstance(reply, dict):
        raise unasked(device, reply)
    if "error" in reply:
        raise _described(reply, device, where)
    return reply


def no_reply(status: int, stderr: bytes, device: str, python: str) -> DeviceError:
    """Why a snippet may have ended with `status` and without an answer."""
    said = printable(stderr)
    if status in {_SHELL_NOT_FOUND, _SHELL_NOT_EXECUTABLE}:
        return DeviceError(
            f"there is no Python at {python!r} on {device}",
            where=said,
            expected="a Python 3.8 or newer",
            fix="install python3 on the device, or name one: edgepack devices add NAME HOST --python PATH",
            code="no-python",
        )
    return DeviceError(
        f"{python!r} on {device} ended with status {status} and no answer",
        where=said,
        expected="a Python 3.8 or newer",
        fix="name an interpreter that works: edgepack devices add NAME HOST --python PATH",
        code="python-failed",
    )


def printable(raw: bytes, limit: int = _MAX_TEXT) -> str:
    """The end of what a device wrote, as text that is safe to show on a terminal."""
    text = raw[-limit:].decode("utf-8", "replace").strip()
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)


def _described(reply: dict[str, Any], device: str, where: str) -> EdgepackError:
    code, message = str(reply["error"]), printable(str(reply.get("message", "")).encode("utf-8", "replace"))
    what = f"{device}: {message or code}"
    if code == "digest":
        return IntegrityError(
            what, where=where, fix="try again; the file may have changed while it was sent", code=code
        )
    if code == "short":
        return TransientDeviceError(what, where=where, fix="try again", code=code)
    if code not in _FIXES:
        code = "device-io"
    return DeviceError(what, where=where, fix=_FIXES[code], code=code)
