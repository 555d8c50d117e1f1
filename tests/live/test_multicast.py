"""Groups over real sockets, on this machine's loopback interface."""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import shutil
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutputAndValue

from tests.live.processes import BIN, Running
from tests.live.programs import run_until
from tests.missing import missing
from tests.patience import PATIENCE, until
from tests.ports import free_port
from twisted_net.auth.users import AuthSettings
from twisted_net.cli.run import INTERRUPTED
from twisted_net.coap.errors import InvalidCoapURI
from twisted_net.coap.group_client import get_from_group
from twisted_net.discovery.announcements import ChangeKind, InstanceChange
from twisted_net.discovery.service import DiscoveryListener
from twisted_net.discovery.settings import DiscoveryGroup, DiscoverySettings
from twisted_net.net.addresses import Source
from twisted_net.service.config import (
    CoapSettings,
    Config,
    TcpSettings,
    UdpGroupSettings,
    UdpSettings,
)
from twisted_net.service.net import NetService
from twisted_net.udp.groups import Group
from twisted_net.udp.limits import GroupSettings
from twisted_net.udp.multicast import GroupProtocol, join, join_all, sending_socket
from twisted_net.udp.port import CappedPort

GROUP = "239.255.93.99"
LO = ("lo",)


async def left(port: CappedPort) -> None:
    """Stop a port."""
    stopped = port.stopListening()
    if stopped is not None:
        await stopped


@pytest.mark.parametrize("interface", ["lo", "127.0.0.1"])
async def test_join(reactor: Any, interface: str) -> None:  # Any: reactors have no one type
    """A group is joined by the name or the address of an interface, and heard there."""
    heard: list[tuple[bytes, Source]] = []
    port = free_port()
    joined = join(
        reactor,
        Group(GROUP, interface),
        port,
        lambda data, source: heard.append((data, source)),
        max_datagram=100,
    )
    with sending_socket(GROUP, interface, 1) as sender:
        sender.sendto(b"hello", (GROUP, port))
        await until(reactor, lambda: heard)
    assert heard[0][0] == b"hello"
    await left(joined)


async def test_another_group(reactor: Any) -> None:  # Any: as above
    """A socket hears its own group alone, not what is sent to another one or to the machine."""
    heard: list[bytes] = []
    port = free_port()
    groups = [Group(GROUP, "lo"), Group("239.255.93.98", "lo")]
    first = join(reactor, groups[0], port, lambda data, _: heard.append(data), max_datagram=9)
    second = join(reactor, groups[1], port, lambda data, _: None, max_datagram=9)
    with sending_socket(GROUP, "lo", 1) as sender:
        sender.sendto(b"other", (groups[1].address, port))
        sender.sendto(b"machine", ("127.0.0.1", port))
        sender.sendto(b"own", (GROUP, port))
        await until(reactor, lambda: heard)
    assert heard == [b"own"]
    await left(first)
    await left(second)


async def test_ipv6(reactor: Any) -> None:  # Any: as above
    """A group of IPv6 is joined by the name of an interface, and left with the port."""
    group = ipaddress.ip_address("ff02::5d47").packed.hex()

    def joined_on_loopback() -> bool:
        rows = Path("/proc/net/igmp6").read_text().splitlines()
        return any(row.split()[1:3] == ["lo", group] for row in rows)

    try:
        joined = join(
            reactor, Group("ff02::5d47", "lo"), free_port(), lambda *it: None, max_datagram=9
        )
    except CannotListenError as error:
        if getattr(error.socketError, "errno", 0) in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            missing("IPv6")
        raise
    assert joined_on_loopback()
    assert joined.getHost().host.startswith("ff02::5d47%")
    await left(joined)
    assert not joined_on_loopback()


async def test_no_interface(reactor: Any) -> None:  # Any: as above
    """An interface that there is not is an error that names it; no group stays joined."""
    groups = [Group(GROUP, "lo"), Group(GROUP, "nowhere0")]
    with pytest.raises(CannotListenError) as raised:
        join_all(reactor, groups, free_port(), lambda data, source: None, max_datagram=9)
    assert "there is no interface nowhere0" in str(raised.value)
    await deferLater(reactor, 0)


async def test_broadcast(reactor: Any) -> None:  # Any: as above
    """Servers find each other by broadcast, too."""
    place = DiscoveryGroup(group="127.255.255.255", port=free_port())
    found: list[InstanceChange] = []
    listener = DiscoveryListener(reactor, reactor, place, found.append)
    service = quiet_service(
        reactor, DiscoverySettings(enabled=True, group=place.group, port=place.port, name="b")
    )
    listener.startService()
    service.startService()
    await until(reactor, lambda: found)
    assert found[0].instance.name == "b"
    assert found[0].instance.services.keys() == {"tcp", "udp"}
    await service.stopService()
    listener.stopService()
    await deferLater(reactor, 0)


def quiet_service(
    reactor: Any,  # Any: as above
    discovery: DiscoverySettings,
    udp: UdpSettings | None = None,
    coap: CoapSettings | None = None,
) -> NetService:
    """Return a service on free ports of loopback."""
    config = Config(
        tcp=TcpSettings(port=0),
        udp=udp or UdpSettings(port=0),
        coap=coap or CoapSettings(),
        discovery=discovery,
        auth=AuthSettings(open=True),
    )
    return NetService(reactor, config)


async def test_discovery(reactor: Any) -> None:  # Any: as above
    """A service is found with its ports, and lost when it stops."""
    port = free_port()
    settings = DiscoverySettings(enabled=True, port=port, interfaces=LO, name="kitchen")
    service = quiet_service(reactor, settings)
    service.startService()
    changes: list[InstanceChange] = []
    place = DiscoveryGroup(port=port, interfaces=LO)
    listener = DiscoveryListener(reactor, reactor, place, changes.append)
    listener.startService()
    await until(reactor, lambda: changes)
    assert service.tcp is not None
    assert service.udp is not None
    (instance,) = listener.instances
    assert (instance.name, instance.host) == ("kitchen", "127.0.0.1")
    assert instance.services == {"tcp": service.tcp.port, "udp": service.udp.port}
    await service.stopService()
    await until(reactor, lambda: len(changes) > 1)
    assert changes[1].kind is ChangeKind.LOST
    listener.stopService()
    await deferLater(reactor, 0)


async def test_shell(reactor: Any) -> None:  # Any: as above
    """``twisted-net discover`` prints a line for each server; its status is 1 without any."""
    port = free_port()
    settings = DiscoverySettings(enabled=True, port=port, interfaces=LO, name="kitchen")
    service = quiet_service(reactor, settings)
    service.startService()

    async def discover(*more: str) -> tuple[bytes, bytes, int]:
        words = ["-m", "twisted_net", "discover", "-i", "lo", "-t", "4", *more]
        result: tuple[bytes, bytes, int] = await getProcessOutputAndValue(
            sys.executable, words, os.environ
        )
        return result

    out, err, status = await discover("-p", str(port))
    assert (err, status) == (b"", 0)
    found = json.loads(out)
    assert found["name"] == "kitchen"
    await service.stopService()
    assert (await discover("-p", str(port), "-t", "0.2"))[2] == 1
    out, err, status = await discover("-i", "nowhere0")
    assert (out, status) == (b"", 2)
    assert err == b"cannot use 239.255.93.71: there is no interface nowhere0\n"
    await deferLater(reactor, 0)


async def test_interrupted(reactor: Any, tmp_path: Path) -> None:  # Any: as above
    """Ctrl-C is how a watch ends; a search that it cuts short has another status."""
    port = free_port()
    settings = DiscoverySettings(enabled=True, port=port, interfaces=LO, name="kitchen")
    service = quiet_service(reactor, settings)
    service.startService()
    words = [str(BIN / "twisted-net"), "discover", "-i", "lo", "-p", str(port)]
    for more, status in ((["--watch"], 0), (["-t", "3600"], INTERRUPTED)):
        async with Running(reactor, [*words, *more], tmp_path) as running:
            await running.logged("kitchen")
            running.signal(signal.SIGINT)
            ended = await running.ended()
        assert (ended.status, ended.stderr) == (status, "")
    await service.stopService()


async def test_datagrams(reactor: Any) -> None:  # Any: as above
    """The datagram server answers a group's question from its own port, and once."""
    udp = UdpSettings(
        port=free_port(), multicast=UdpGroupSettings(groups=(GROUP,), interfaces=LO, leisure=0.01)
    )
    service = quiet_service(reactor, DiscoverySettings(), udp=udp)
    service.startService()
    answers: list[tuple[bytes, Source]] = []
    opened = sending_socket(GROUP, "lo", 1)
    heard = GroupProtocol(lambda data, source: answers.append((data, source)))
    asker = CappedPort(0, heard, "", 1000, reactor, opened=opened)
    asker.startListening()
    asker.write(b"PING", (GROUP, udp.port or 0))
    await until(reactor, lambda: answers)
    await deferLater(reactor, 0.05)
    assert answers == [(b"PONG", ("127.0.0.1", udp.port))]
    await left(asker)
    await service.stopService()


async def test_coap(reactor: Any) -> None:  # Any: as above
    """All servers of a group answer our client's question; it has one answer of each."""
    port = free_port()
    services = []
    for host in ("127.0.0.1", "127.0.0.2"):
        coap = CoapSettings(
            enabled=True,
            interface=host,
            port=port,
            leisure=0.01,
            multicast=GroupSettings(groups=("224.0.1.187",), interfaces=LO),
        )
        services.append(quiet_service(reactor, DiscoverySettings(), coap=coap))
        services[-1].startService()
    uri = f"coap://224.0.1.187:{port}/time"
    answers = await get_from_group(reactor, reactor, uri, interface="lo", wait=PATIENCE, limit=2)
    assert {answer.source[0] for answer in answers} == {"127.0.0.1", "127.0.0.2"}
    assert all(answer.response.ok and "T" in answer.response.text for answer in answers)
    first = await get_from_group(reactor, reactor, uri, interface="lo", wait=PATIENCE, limit=1)
    assert len(first) == 1
    # Who has nothing to say to a group says nothing.
    assert await get_from_group(reactor, reactor, uri + "x", interface="lo", wait=0.3) == []
    for service in services:
        await service.stopService()
    with pytest.raises(InvalidCoapURI):
        await get_from_group(reactor, reactor, "coap://127.0.0.1/time")


@pytest.mark.parametrize(("interface", "group"), [("", "224.0.1.187"), ("::", "ff02::fd")])
async def test_all_addresses(reactor: Any, interface: str, group: str) -> None:  # Any: as above
    """A server of all addresses joins groups too; its port is not shared for longer than that."""
    port = free_port()
    multicast = GroupSettings(groups=(group,), interfaces=LO)
    coap = CoapSettings(
        enabled=True, interface=interface, port=port, leisure=0.01, multicast=multicast
    )
    service = quiet_service(reactor, DiscoverySettings(), coap=coap)
    service.startService()
    if not interface:
        uri = f"coap://{group}:{port}/time"
        ask = partial(get_from_group, reactor, reactor, uri, interface="lo")
        answers = await ask(wait=PATIENCE, limit=1)
        assert answers[0].response.ok
    family = socket.AF_INET6 if interface else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind((interface, port))
    await service.stopService()


async def test_coap_client(reactor: Any) -> None:  # Any: as above
    """libcoap's client asks the group of all CoAP nodes, and is answered."""
    program = shutil.which("coap-client-notls")
    if program is None:
        missing("coap-client-notls")
    coap = CoapSettings(
        enabled=True,
        port=free_port(),
        leisure=0.1,
        multicast=GroupSettings(groups=("224.0.1.187",), interfaces=LO),
    )
    service = quiet_service(reactor, DiscoverySettings(), coap=coap)
    service.startService()
    words = ["-N", "-B", "3600", "-m", "get", "-a", "127.0.0.1"]
    uri = f"coap://224.0.1.187:{coap.port}/echo?hello"
    # It would wait for more.
    out = await run_until(program, *words, uri, data=b"", marker=b"hello")
    assert out.strip() == b"hello"
    await service.stopService()
