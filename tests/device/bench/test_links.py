"""Links are as bad as they say. Bounds on time are lower ones only: a loaded host may be slower, never faster."""

import contextlib
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.device.bench import links
from tests.device.bench.links import PROFILES, Link, Quality

pytestmark = [pytest.mark.device, pytest.mark.skipif(bool(links.why_not()), reason=links.why_not())]


@pytest.fixture
def joined():
    """A link and a far server that sends everything back; gives the link and a socket through it."""
    made = []

    def start(quality=None):
        link = Link(quality)
        listening = threading.Event()

        def serve():
            with Path(f"/run/netns/{link.far}").open() as far:
                links._setns(far)  # this thread ends inside
            with socket.create_server((links.THERE, 4000)) as server:
                listening.set()
                server.settimeout(20)
                peer, _ = server.accept()
                with peer, contextlib.suppress(OSError):  # a cut link may end in a reset
                    peer.settimeout(20)
                    while data := peer.recv(65536):
                        peer.sendall(data)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        assert listening.wait(10)
        sock = link.connect(4000)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.append((link, sock, thread))
        return link, sock

    yield start
    for link, sock, thread in made:
        link.restore()
        sock.close()
        thread.join(25)
        link.close()


def echo(sock, data):
    sender = threading.Thread(target=sock.sendall, args=(data,))
    sender.start()
    back = b""
    while len(back) < len(data) and (part := sock.recv(65536)):
        back += part
    sender.join()
    return back


def test_delay_is_added_both_ways(joined):
    _, sock = joined(Quality(delay_ms=50))
    started = time.monotonic()
    assert echo(sock, b"x") == b"x"
    assert time.monotonic() - started >= 0.1


def test_rate_is_a_limit(joined):
    _, sock = joined(Quality(rate_mbit=8))
    data = bytes(200_000)
    started = time.monotonic()
    assert echo(sock, data) == data
    assert time.monotonic() - started >= 0.2  # 200 kB at 1 MB/s, one way


def test_data_survives_a_lossy_link(joined):
    link, sock = joined(PROFILES["wifi-bad"])
    sock.settimeout(60)
    data = bytes(range(256)) * 100
    assert echo(sock, data) == data
    assert link.carried > 2 * len(data)


def test_cut_is_silence_and_restore_heals(joined):
    link, sock = joined()
    assert echo(sock, b"one") == b"one"
    link.cut()
    sock.sendall(b"two")
    sock.settimeout(0.5)
    with pytest.raises(TimeoutError):
        sock.recv(10)
    link.restore()
    sock.settimeout(30)
    assert sock.recv(10) == b"two"


def test_cut_for_seconds_heals_by_itself(joined):
    link, sock = joined()
    link.cut_for(0.5)
    started = time.monotonic()
    sock.settimeout(30)
    assert echo(sock, b"late") == b"late"
    assert time.monotonic() - started >= 0.45
    assert link.up


def test_cut_after_bytes(joined):
    link, sock = joined()
    link.cut_after(50_000)
    sock.settimeout(1)
    received = 0
    try:
        for _ in range(100):
            sock.sendall(bytes(2000))
            received += len(sock.recv(65536))
    except TimeoutError:
        assert not link.up
    assert 10_000 < received < 50_000


def test_the_test_itself_stays_outside(joined):
    link, _ = joined()
    with socket.socket() as outside, pytest.raises(OSError, match="assign requested address"):
        outside.bind((links.HERE, 0))
    with link.inside(), socket.socket() as inside:
        inside.bind((links.HERE, 0))


def test_a_transport_over_a_bad_link(linked, client, connect):
    device, link = linked("wifi-bad")
    client.trust(device)
    with link.inside():
        # A transport connects when it is first used, so that must happen in here too.
        assert connect(device).run(["hostname"]).stdout.decode() == device.name + "\n"
