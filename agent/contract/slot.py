"""A slot: the name under which an application finds the bundle that it is to run."""

from __future__ import annotations

import dataclasses
import re
from typing import List, Optional

from agent.contract.errors import UsageError

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")


@dataclasses.dataclass(frozen=True)
class Slot:
    """Bundle digests: `current` runs, `previous` is what a rollback returns to, `staged` waits for its activation.

    `sequence` counts the changes; `changed_unix` is what the device's clock said, and nothing is decided by it.
    """

    name: str
    current: Optional[str] = None
    previous: Optional[str] = None
    staged: Optional[str] = None
    sequence: int = 0
    changed_unix: float = 0.0
    schema: str = "edgepack.slot/1"

    def holds(self) -> List[str]:
        """The bundles that must not be deleted."""
        return [digest for digest in (self.current, self.previous, self.staged) if digest is not None]


def check_slot_name(name: str) -> str:
    """`name` itself. Raises UsageError."""
    if not _NAME.match(name):
        raise UsageError("not a name for a slot: %.100r" % name, expected="letters, digits, - and _, at most 64")
    return name
