"""What this host changed on which device, and when: JSON lines in the user's state folder."""

from __future__ import annotations

import contextlib
import functools
import getpass
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.contract import audit
from agent.contract.errors import EdgepackError, UsageError
from agent.contract.manifest import manifest_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RECORDED = frozenset({"install", "receive", "activate", "rollback", "remove", "prune", "trust", "quota", "provision"})
_MOST = 200


def log_path() -> Path:
    """Where the log lies."""
    import platformdirs

    return platformdirs.user_state_path("edgepack") / "audit.jsonl"


@functools.cache
def who() -> str:
    """The user and host that ask."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def entries(last: int = 100) -> list[dict[str, Any]]:
    """The last records, the oldest first. Raises UsageError."""
    try:
        return audit.read(log_path(), last)
    except OSError as error:
        raise UsageError(f"the audit log cannot be read: {error}", where=str(log_path())) from error


@contextlib.contextmanager
def recorded(device: str, verb: str, arguments: dict[str, Any]) -> Iterator[Callable[[Any], None]]:
    """Writes how the verb ended on that device. The caller hands over the result; what changes nothing is no event."""
    told: dict[str, Any] = {}
    if verb not in RECORDED or (verb == "trust" and "trust" not in arguments):
        yield lambda _: None
        return
    asked = {key: arguments[key] for key in ("digest", "slot") if isinstance(arguments.get(key), str)}
    if isinstance(arguments.get("manifest"), str):
        asked["digest"] = manifest_digest(arguments["manifest"].encode())

    def note(result: Any) -> None:
        if isinstance(result, dict):
            slot = result.get("slot")
            if isinstance(slot, dict) and isinstance(slot.get("current"), str):
                told["digest"] = slot["current"][:_MOST]
            for key in ("bundle", "digest"):
                if isinstance(result.get(key), str):
                    told["digest"] = result[key][:_MOST]
            if isinstance(result.get("removed"), list):
                told["removed"] = [str(one)[:_MOST] for one in result["removed"][:_MOST]]

    outcome, code = "failed", ""
    try:
        yield note
        outcome = "done"
    except EdgepackError as error:
        code = error.code or type(error).__name__
        raise
    except BaseException as error:
        code = type(error).__name__
        raise
    finally:
        _write(
            {"device": device, "event": verb, "outcome": outcome, **asked, **told, **({"code": code} if code else {})}
        )


def _write(record: dict[str, Any]) -> None:
    path = log_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        audit.append(path, {"at": time.time(), "who": who(), **record})
    except OSError as error:
        raise UsageError(
            f"the audit log cannot be written: {error}", where=str(path), fix="free space there, or set XDG_STATE_HOME"
        ) from error
