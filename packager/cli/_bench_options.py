"""How `bench` measures: the options of its protocol."""

from __future__ import annotations

from typing import Any

import click


class Threads(click.ParamType[int]):
    """A number, or `auto`, which is told as -1."""

    name = "number|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of threads."""
        if value == "auto":
            return -1
        return int(click.IntRange(0, 1024).convert(value, param, ctx))


def protocol_options(function: Any) -> Any:
    """--threads, --seconds, --runs, --rounds, --sustained, --batch, --streams, --profile."""
    options = (
        click.option(
            "--threads",
            type=Threads(),
            default=0,
            metavar="N|auto",
            help="Threads of the runtime, or the fastest [its own].",
        ),
        click.option(
            "--seconds",
            type=click.FloatRange(0.01, 86400),
            help="Time measured, over all rounds [3; an emulated device that counts: 20 inferences].",
        ),
        click.option(
            "--runs", type=click.IntRange(1, 2_000_000), help="Exactly so many timed inferences, instead of --seconds."
        ),
        click.option(
            "--rounds",
            type=click.IntRange(1, 1000),
            help="Fresh processes to measure in [3; 2 where instructions are counted].",
        ),
        click.option(
            "--sustained",
            "sustained_minutes",
            type=click.FloatRange(0.05, 1440),
            metavar="MIN",
            help="So many minutes in one process, from its first inference on: the course, with clock and heat.",
        ),
        click.option(
            "--batch",
            type=click.IntRange(1, 65536),
            help="Samples in one inference; the model's first dimension must be free.",
        ),
        click.option("--streams", type=click.IntRange(1, 256), help="Inferences at once, for the throughput [1]."),
        click.option("--profile", is_flag=True, help="Also the time of every layer, and what conversion costs."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def chosen(options: dict[str, Any]) -> dict[str, Any]:
    """What was asked for, as fields of BenchOptions."""
    found = {key: value for key, value in options.items() if value is not None and value is not False}
    if found.get("threads", 0) < 0:
        found |= {"threads": 0, "threads_auto": True}
    return found
