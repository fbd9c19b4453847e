"""Fixtures: devices on loopback, and the links to them."""

import pytest

from tests.device.bench import links
from tests.device.bench.loopback import Loopback, why_not_isolated


@pytest.fixture
def loopback(user_key):
    """Starts devices on loopback: `loopback(name="kitchen", memory_bytes=...)`."""
    made = []

    def start(**options):
        made.append(Loopback(user_key.with_name("id_ed25519.pub").read_text(), **options))
        return made[-1].start()

    yield start
    for each in made:
        each.remove()


@pytest.fixture
def linked(loopback):
    """Starts a device behind a link: `device, link = linked("wifi-bad")`, or with a `Quality` of one's own."""
    reason = links.why_not() or why_not_isolated()
    if reason:
        pytest.skip(reason)
    made = []

    def start(quality=None, **options):
        link = links.Link(links.PROFILES[quality] if isinstance(quality, str) else quality)
        made.append(link)
        return loopback(network=link.far, host=links.THERE, **options), link

    yield start
    for each in made:
        each.close()
