"""Groups, discovery and moving clients between two machines, which are network namespaces."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.namespaces import FAR_IPV4, FAR_IPV6, NEAR, Link, linked
from tests.live.processes import BIN, Ended, Running

OPEN = """
[tcp]
enabled = true
interface = ""
port = 8888
[udp]
enabled = true
interface = "{interface}"
port = 9999
multicast = {{groups = {groups}, interfaces = ["far0"], leisure = 0.01}}
[coap]
enabled = true
interface = "{interface}"
leisure = 0.01
multicast = {{groups = {groups}, interfaces = ["far0"]}}
[discovery]
enabled = true
name = "kitchen"
interfaces = ["far0"]
group = "{discovery}"
[auth]
open = true
"""

ASK_GROUP = """
import sys
from twisted.internet.task import react
from twisted_net.coap.group_client import get_from_group

async def ask(reactor, uri, count):
    answers = await get_from_group(
        reactor, reactor, uri, interface="near0", wait=60 * int(count) or 0.5, limit=1
    )
    for answer in answers:
        print(*answer.source, answer.response.code, answer.response.text)

react(ask, sys.argv[1:])
"""

MOVE = """
import random, subprocess, sys
from twisted.internet.task import react
from twisted_net.coap import CoapClient, CoapClientSettings, client_response

# So that a state is overdue soon.
client_response.DEFAULT_MAX_AGE = 0
random.uniform = lambda low, high: 0.3

def move(to):
    subprocess.run(["ip", "addr", "flush", "dev", "near0", "scope", "global"], check=True)
    subprocess.run(["ip", "addr", "add", to + "/24", "dev", "near0"], check=True)

async def work(reactor, uri):
    async with CoapClient(reactor, CoapClientSettings(ack_timeout=0.2)) as device:
        posted = await device.post(uri + "/topics/room", b"before")
        states = await device.observe(uri + "/topics/room")
        print(posted.code, (await states.__anext__()).text)
        for number, address in enumerate(("10.77.0.3", "10.77.0.4"), 1):
            move(address)
            text = "moved %d" % number
            posted = await device.post(uri + "/topics/room", text.encode())
            async for state in states:
                if state.text == text:
                    break
            print(posted.code, state.text, states.renewals >= number)

react(work, sys.argv[1:])
"""


@pytest.fixture
def link() -> Iterator[Link]:
    """The namespaces of one test."""
    with linked() as made:
        yield made


def serving(
    reactor: Any,  # Any: reactors have no one type
    link: Link,
    folder: Path,
    *,
    ipv6: bool = False,
) -> Running:
    """Start a service on the far machine, which listens on all its addresses."""
    text = OPEN.format(
        interface="::" if ipv6 else "",
        groups='["ff02::fd", "ff05::fd"]' if ipv6 else '["224.0.1.187"]',
        discovery="ff02::5d47" if ipv6 else "239.255.93.71",
    )
    (folder / "net.toml").write_text(text)
    words = [sys.executable, "-m", "twisted_net", "run", "-c", "net.toml"]
    return Running(reactor, link.far_words(*words), folder)


async def listening(service: Running) -> None:
    """Wait until a service listens."""
    await service.logged(r":9999 \(udp\)")
    await service.logged(r":5683 \(coap\)")


async def run(reactor: Any, folder: Path, *words: str) -> Ended:  # Any: as above
    """Run a program to its end."""
    async with Running(reactor, words, folder) as running:
        return await running.ended()


@pytest.mark.parametrize("group", ["224.0.1.187", "ff02::fd", "ff05::fd"])
async def test_coap_group(reactor: Any, link: Link, tmp_path: Path, group: str) -> None:
    """A server on another machine answers a group's question from its own address (RFC 7252 §8)."""
    ipv6 = ":" in group
    host, source = (f"[{group}]", f"{FAR_IPV6}%2 5683") if ipv6 else (group, f"{FAR_IPV4} 5683")
    async with serving(reactor, link, tmp_path, ipv6=ipv6) as service:
        await listening(service)
        ask = link.near_words(sys.executable, "-c", ASK_GROUP, f"coap://{host}/echo?hello", "1")
        answered = await run(reactor, tmp_path, *ask)
        assert answered.stdout.split() == [*source.split(), "69", "hello"], answered
        # An error is no answer to a group (§8.2).
        nothing = link.near_words(sys.executable, "-c", ASK_GROUP, f"coap://{host}/nope", "0")
        assert (await run(reactor, tmp_path, *nothing)).stdout == ""


async def test_link_local(reactor: Any, link: Link, tmp_path: Path) -> None:
    """A server is reached at its link-local address, on the interface that the URI names."""
    async with serving(reactor, link, tmp_path, ipv6=True) as service:
        await listening(service)
        uri = f"coap://[{FAR_IPV6}%25{NEAR}]/echo?hello"
        got = await run(
            reactor, tmp_path, *link.near_words(str(BIN / "twisted-net"), "coap", "get", uri)
        )
        assert (got.status, got.stdout, got.stderr) == (0, "hello", "")


@pytest.mark.parametrize("ipv6", [False, True])
async def test_discovery(reactor: Any, link: Link, tmp_path: Path, ipv6: bool) -> None:
    """A server on another machine is found with its address and ports, and lost when it stops."""
    group = "ff02::5d47" if ipv6 else "239.255.93.71"
    watch = (str(BIN / "twisted-net"), "discover", "-i", NEAR, "-g", group, "--watch")
    async with (
        Running(reactor, link.near_words(*watch), tmp_path) as watching,
        serving(reactor, link, tmp_path, ipv6=ipv6) as service,
    ):
        await listening(service)
        found = json.loads((await watching.logged(r"\{.*\}\n"))[0])
        assert found["name"] == "kitchen"
        host, _, scope = found["host"].partition("%")
        assert (host, bool(scope)) == ((FAR_IPV6, True) if ipv6 else (FAR_IPV4, False))
        assert found["services"] == {"tcp": 8888, "udp": 9999, "coap": 5683}
        service.signal(signal.SIGTERM)
        await watching.logged("lost")
        assert (await service.ended()).status == 0


async def test_client_moves(reactor: Any, link: Link, tmp_path: Path) -> None:
    """
    A client whose address changes goes on: its requests are answered, its observation is renewed.

    To the server it is another client, which proves its address again.
    """
    async with serving(reactor, link, tmp_path) as service:
        await listening(service)
        words = link.near_words(sys.executable, "-c", MOVE, f"coap://{FAR_IPV4}")
        moved = await run(reactor, tmp_path, *words)
        assert moved.stdout.splitlines() == [
            "68 before",
            "68 moved 1 True",
            "68 moved 2 True",
        ], moved
