"""WordNet's nouns and what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.zoo.packages import Packages


def glosses(packages: Packages) -> list[tuple[str, str]]:
    """The first noun of each meaning with the meaning's first definition, in the order of WordNet's file."""
    found = []
    file = packages["wordnet-base"] / "usr/share/wordnet/data.noun"
    for entry in file.read_text(encoding="latin1").splitlines():
        if entry[:1].isdigit():  # the licence before them is indented
            fields, definition = entry.split("|", 1)
            found.append((fields.split()[4].replace("_", " "), definition.split(";")[0].strip()))
    return found
