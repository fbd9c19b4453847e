"""What the owner of this device has set, in ROOT/settings.json: it stays when bundles come and go."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Optional

from agent.contract import codec
from agent.disk import write_atomic


@dataclasses.dataclass(frozen=True)
class Settings:
    """`quota_bytes` is what edgepack's folder may hold in all; None: whatever the disk has."""

    quota_bytes: Optional[int] = None
    schema: str = "edgepack.settings/1"


def load(root: Path) -> Settings:
    """The settings, or the defaults where none were made. Raises ContractError for a file that cannot be read."""
    path = root / "settings.json"
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return Settings()
    return codec.loads(Settings, raw, source=str(path))


def save(root: Path, settings: Settings) -> None:
    """Writes them; a cut leaves the old ones or the new."""
    write_atomic(root / "settings.json", codec.dumps(settings).encode("utf-8"))
