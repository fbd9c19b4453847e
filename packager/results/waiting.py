"""Reports that a database could not take: kept in files until it can. A measurement is never lost to a database."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from agent.contract import codec
from agent.contract.errors import ContractError
from agent.contract.report import Report


@dataclasses.dataclass(frozen=True)
class Waiting:
    """A report on its way into a database; `database` is its address without a password."""

    database: str
    device: str
    stored_unix: float
    report: Report
    schema: str = "edgepack.waiting/1"


class WaitingRoom:
    """The folder of the reports that wait for one database."""

    def __init__(self, database: str, folder: Path | None = None) -> None:
        self.database = database
        self._base = folder

    @property
    def folder(self) -> Path:
        """Where they lie."""
        import platformdirs

        base = self._base or platformdirs.user_data_path("edgepack") / "waiting"
        return base / hashlib.sha256(self.database.encode()).hexdigest()[:16]

    def keep(self, report: Report, device: str, stored_unix: float) -> Path:
        """Writes the report, and is sure of it. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(report.job.encode()).hexdigest()[:32]
        path = self.folder / f"{name}.json"
        part = self.folder / f".{name}.{secrets.token_hex(4)}.part"
        try:
            with part.open("x", encoding="utf-8") as file:
                file.write(codec.dumps(Waiting(self.database, device, stored_unix, report)))
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return path

    def count(self) -> int:
        """How many wait."""
        return sum(1 for _ in self.folder.glob("*.json"))

    def all(self) -> Iterator[tuple[Path, Waiting | str]]:
        """Every report, oldest first; in the place of one that cannot be read stands why."""
        found = []
        for path in self.folder.glob("*.json"):
            with contextlib.suppress(FileNotFoundError):  # another process has stored it
                found.append((path.stat().st_mtime_ns, path))
        for _, path in sorted(found):
            try:
                yield path, codec.loads(Waiting, path.read_text(encoding="utf-8"), source=str(path))
            except FileNotFoundError:
                continue
            except (OSError, UnicodeDecodeError, ContractError) as error:
                yield path, str(error)
