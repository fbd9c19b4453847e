"""Bring a bundle to a fleet in stages, and back when too many devices are not well."""

from __future__ import annotations

import json

import click

from packager.cli import _complete
from packager.cli._fleet import FleetOptions, Work, fleet_options
from packager.cli._show import json_option, progress


@click.command()
@click.argument("bundle")
@click.argument("devices", nargs=-1, shell_complete=_complete.devices)
@click.option("--slot", required=True, help="The slot that it is for.")
@click.option("--stages", default="100%", show_default=True, help="How many are served in the end: 1,10%,100%.")
@click.option(
    "--halt-on", default="0%", show_default=True, help="More than this share of a stage failed: it goes back."
)
@click.option("--latency-budget", type=click.FloatRange(0.0, min_open=True), help="p50 (ms) that no device may pass.")
@fleet_options
@json_option
def command(
    bundle: str,
    devices: tuple[str, ...],
    slot: str,
    stages: str,
    halt_on: str,
    latency_budget: float | None,
    fleet: FleetOptions,
    *,
    as_json: bool,
) -> int:
    """Push BUNDLE to the devices and activate it in the slot, stage after stage.

    A device is well when the golden check passes there, and its p50 is within the budget. One that cannot be reached has
    failed, too. When more than --halt-on of a stage failed, the whole stage gets its previous bundle back, the roll-out
    ends, and the exit code is 6.
    """
    from agent.contract.errors import BudgetError
    from packager.cli._fleet import digest_of, finish, opener
    from packager.fleet import rollout
    from packager.fleet.run import Outcome

    names = fleet.names(devices)
    share = rollout.parse_share(halt_on)
    key = ["rollout", digest_of(bundle), slot, latency_budget, list(devices)]
    work = Work(
        fleet, key, lambda one: f"{one['device']}: {one['bundle'][:19]} active in {slot}", _document, as_json=as_json
    )
    ends = rollout.parse_stages(stages, len(names))
    left = set(work.left(names))
    # The devices that are done keep their place: the stages are those of the whole fleet.
    kept = [name for name in names if name in left]
    ends = [sum(name in left for name in names[:end]) for end in ends]
    errors, halted = [], False
    with progress() as say:
        health = rollout.Health(slot, bundle, latency_budget)
        made = rollout.Rollout(opener(say), lambda device: rollout.put(device, bundle, slot), health, fleet.limits())
        for event in made.run(kept, ends, share):
            if isinstance(event, Outcome):
                work.tell(event)
                errors += [(event.device, event.error)] if event.error else []
                continue
            halted = halted or event.halted
            work.forget(event.rolled_back)
            _tell(event, as_json=as_json)
            errors += event.stuck
    work.summary(halted=halted)
    return BudgetError.exit_code if halted and finish(errors) >= 0 else finish(errors)


def _document(result: dict[str, object]) -> dict[str, object]:
    return result


def _tell(stage: object, *, as_json: bool) -> None:
    from packager.fleet.rollout import Stage

    if not isinstance(stage, Stage):
        raise TypeError(stage)
    back, stuck = list(stage.rolled_back), [name for name, _ in stage.stuck]
    if as_json:
        told = {"stage": stage.number, "devices": stage.devices, "failed": stage.failed, "halted": stage.halted}
        click.echo(json.dumps({**told, "rolled_back": back, "stuck": stuck}))
        return
    text = f"stage {stage.number}: {stage.devices} devices, {stage.failed} failed"
    if stage.halted:
        text += f"; halted, {len(back)} rolled back" + (f", not back: {', '.join(stuck)}" if stuck else "")
    click.echo(text)
