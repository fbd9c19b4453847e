"""Comparisons kept on the host, beside the reports: each pairing whole, with all its samples."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from agent.contract import codec
from agent.contract.errors import UsageError
from agent.contract.pairing import Pairing
from packager.results.store import ResultStore
from packager.results.tables import tables

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import sqlalchemy as sa


@dataclasses.dataclass(frozen=True)
class StoredComparison:
    """The pairings of one comparison (more than one with --until-decided), under the number of the first."""

    number: int
    stored_unix: float
    device: str
    margin: float
    looks: int
    pairings: list[Pairing]


@dataclasses.dataclass(frozen=True)
class ComparisonRow:
    """A comparison as the table's columns tell it, its samples unread; `what`: device and both bundles' names."""

    number: int
    stored_unix: float
    what: tuple[str, str, str]


class PairingStore(ResultStore):
    """The same database as the reports'. Raises UsageError when it cannot be used."""

    def add_pairings(self, pairings: Sequence[Pairing], device: str, margin: float, looks: int = 0) -> list[int]:
        """Keeps the pairings of one comparison; their numbers. One that is here already keeps its number. `looks` is how
        often it was judged while it grew (0: once, at the end).
        """
        shared = {
            "comparison": pairings[0].job,
            "device": device,
            "margin": margin,
            "looks": looks,
            "stored_unix": time.time(),
        }

        def work(connection: sa.Connection) -> list[int]:
            return [_insert(connection, one, shared) for one in pairings]

        return self._write(work)

    def comparison(self, number: int) -> StoredComparison:
        """One comparison. Raises UsageError when there is none of this number, ContractError for one of another form."""
        found = self._comparisons(number)
        if not found:
            raise UsageError(
                f"there is no comparison {number}", where=self.name, fix="edgepack results comparisons", code="no-run"
            )
        return found[0]

    def comparisons(self) -> list[StoredComparison]:
        """All of them, oldest first."""
        return self._comparisons(None)

    def comparison_rows(self) -> list[ComparisonRow]:
        """All of them, oldest first, their samples unread."""
        import sqlalchemy as sa

        table = tables().pairings
        query = sa.select(*(column for column in table.c if column.name != "document")).order_by(table.c.pairing)
        found: dict[str, ComparisonRow] = {}
        with self._read() as connection:
            for row in connection.execute(query):
                what = (row.device, row.a_name, row.b_name)
                found.setdefault(row.comparison, ComparisonRow(int(row.pairing), row.stored_unix, what))
        return list(found.values())

    def delete_comparisons(self, numbers: Collection[int]) -> None:
        """Forgets these comparisons, all pairings of each."""
        import sqlalchemy as sa

        table = tables().pairings

        def work(connection: sa.Connection) -> None:
            for number in numbers:
                words = connection.execute(sa.select(table.c.comparison).where(table.c.pairing == number)).scalars()
                for word in list(words):
                    connection.execute(sa.delete(table).where(table.c.comparison == word))

        self._write(work)

    def _comparisons(self, number: int | None) -> list[StoredComparison]:
        import sqlalchemy as sa

        table = tables().pairings
        query = sa.select(table).order_by(table.c.pairing)
        if number is not None:
            first = sa.select(table.c.comparison).where(table.c.pairing == number).scalar_subquery()
            query = query.where(table.c.comparison == first)
        grouped: dict[str, list[Any]] = {}
        with self._read() as connection:
            for row in connection.execute(query):
                grouped.setdefault(row.comparison, []).append(row)
        return [
            StoredComparison(
                number=int(rows[0].pairing),
                stored_unix=rows[0].stored_unix,
                device=rows[0].device,
                margin=rows[0].margin,
                looks=rows[0].looks,
                pairings=[codec.loads(Pairing, row.document, source=f"pairing {row.pairing}") for row in rows],
            )
            for rows in grouped.values()
        ]


def _insert(connection: sa.Connection, pairing: Pairing, shared: dict[str, Any]) -> int:
    import sqlalchemy as sa

    table = tables().pairings
    found = connection.execute(sa.select(table.c.pairing).where(table.c.job == pairing.job)).scalar()
    if found is not None:
        return int(found)
    row = {
        **shared,
        "job": pairing.job,
        "a_bundle": pairing.a.bundle,
        "b_bundle": pairing.b.bundle,
        "a_name": f"{pairing.a.name} {pairing.a.recipe}",
        "b_name": f"{pairing.b.name} {pairing.b.recipe}",
        "document": codec.dumps(pairing),
    }
    key = connection.execute(sa.insert(table).values(**row)).inserted_primary_key
    return int(key[0]) if key else 0
