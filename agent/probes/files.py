"""Small reads from /proc and /sys, under a root that tests may set to a recorded tree."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict, List, Optional


def read_text(root: str, path: str) -> Optional[str]:
    """The file's text without surrounding white space, or None when there is none or it may not be read."""
    try:
        with open(os.path.join(root, path.lstrip("/")), encoding="utf-8", errors="replace") as file:
            return file.read().strip().strip("\0")
    except OSError:
        return None


def read_int(root: str, path: str) -> Optional[int]:
    """The whole number in the file, or None."""
    text = read_text(root, path)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def number(text: str) -> Optional[float]:
    """The number that the first word is, or None."""
    try:
        return float(text.split(maxsplit=1)[0])
    except (IndexError, ValueError):
        return None


def listing(root: str, pattern: str) -> List[str]:
    """Paths below `root` that match the glob, as absolute device paths, sorted."""
    base = Path(root)
    return sorted("/" + str(path.relative_to(base)) for path in base.glob(pattern.lstrip("/")))


def key_values(text: str) -> Dict[str, str]:
    """Lines of `key: value` (the first of each key), as in /proc/cpuinfo and /proc/meminfo."""
    found: Dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            found.setdefault(key.strip(), value.strip())
    return found
