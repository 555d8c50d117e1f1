"""The assembled service inside somebody else's application, on real ports."""

from __future__ import annotations

import json
import signal
import socket
from typing import Any

import pytest
from twisted.internet.task import deferLater

from tests.live.processes import ask_datagrams, exchange
from twisted_net.auth.users import AuthSettings
from twisted_net.errors import CannotListen
from twisted_net.service.config import Config, TcpSettings, UdpSettings
from twisted_net.service.net import NetService

FREE = Config(tcp=TcpSettings(port=0), udp=UdpSettings(port=0))


async def test_serves(reactor: Any) -> None:
    """Both servers answer, stop without a trace, and can be started again."""
    service = NetService(reactor, FREE)
    assert service.tcp is not None
    assert service.udp is not None
    for _ in range(2):
        service.startService()
        assert service.tcp.port
        assert service.udp.port
        assert json.loads(await exchange(service.tcp.port, b"PING\n"))["result"] == "PONG"
        assert await ask_datagrams(service.udp.port, b"ping") == [b"PONG"]
        await service.stopService()
        assert [part.port for part in (service.tcp, service.udp)] == [None, None]


async def test_leaves_signals_alone(reactor: Any) -> None:
    """An application that embeds the service keeps its own handlers of signals."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    service = NetService(reactor, FREE)
    service.startService()
    assert [signal.getsignal(number) for number in numbers] == before
    await service.stopService()


async def test_releases_what_it_bound(reactor: Any) -> None:
    """Where the second port is taken, the first one is free again in the next turn."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        with socket.create_server(("127.0.0.1", 0)) as free:
            tcp = free.getsockname()[1]
        udp = other.getsockname()[1]
        config = Config(tcp=TcpSettings(port=tcp), udp=UdpSettings(port=udp))
        service = NetService(reactor, config)
        with pytest.raises(CannotListen, match=rf":{udp} \(udp\): address already in use"):
            service.startService()
        assert not service.running
        await deferLater(reactor, 0)
        socket.create_server(("127.0.0.1", tcp)).close()


async def test_addresses_of_others(reactor: Any) -> None:
    """An address that is not of this machine is refused with the system's reason."""
    # 192.0.2.0/24 is for documentation (RFC 5737): no machine has it.
    taken = TcpSettings(interface="192.0.2.1", port=0)
    config = Config(tcp=taken, udp=FREE.udp, auth=AuthSettings(open=True))
    with pytest.raises(CannotListen, match=r"192\.0\.2\.1:0 \(tcp\): cannot assign"):
        NetService(reactor, config).startService()


async def test_ipv6(reactor: Any) -> None:
    """Both servers listen on IPv6 where they are told to."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no ::1")
    service = NetService(
        reactor,
        Config(tcp=TcpSettings(interface="::1", port=0), udp=UdpSettings(interface="::1", port=0)),
    )
    service.startService()
    assert service.tcp is not None
    assert service.tcp.port
    await service.stopService()
