"""What was pushed, activated or rolled back, by whom."""

from __future__ import annotations

import time
from typing import Any

import click

from packager.cli import _complete
from packager.cli._show import json_option, print_json, table


@click.command()
@click.argument("device", required=False, shell_complete=_complete.devices)
@click.option("--last", type=click.IntRange(1, 10000), default=20, show_default=True, help="How many records.")
@json_option
def command(device: str | None, last: int, *, as_json: bool) -> None:
    """The audit log of this host, or, with DEVICE, the one that the device keeps."""
    from packager.device import audit
    from packager.device.answers import part
    from packager.device.device import Device

    rows: list[dict[str, Any]]
    if device is None:
        rows = audit.entries(last)
    else:
        with Device(device) as connected:
            answer = connected.session.call("audit", {"last": last})
        rows = [row for row in part(answer, "entries", list, device) if isinstance(row, dict)]
    if as_json:
        print_json(rows)
        return
    table(["when (UTC)", "event", "outcome", "bundle", "slot", "who", "device"], [_row(row) for row in rows])


def _row(row: dict[str, Any]) -> list[str]:
    at = row.get("at")
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at)) if isinstance(at, float) and 0 <= at < 2**40 else "?"
    outcome = f"{row.get('outcome', row.get('torn', ''))} {row.get('code', '')}".strip()
    texts = [row.get("event"), outcome, str(row.get("digest", ""))[:19], row.get("slot"), row.get("who")]
    return [when, *(str(text or "") for text in texts), str(row.get("device") or row.get("from") or "")]
