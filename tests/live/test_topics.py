"""Topics over real sockets: one stuck reader costs the others nothing."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.live.processes import Line
from twisted_net.commands.standard import standard_commands
from twisted_net.sessions import Sessions
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.server import CommandFactory
from twisted_net.topics import Topics, TopicSettings


async def test_stuck_reader(reactor: Any) -> None:
    """Others get every message in order and at once, while one reads nothing and is bounded."""
    topics = Topics(TopicSettings(max_queue=65_536))
    sessions = Sessions(time.time, topics)
    # However long it takes, the stuck one is not cut off.
    factory = CommandFactory(
        reactor, standard_commands(), Limits(write_timeout=3600.0), sessions=sessions
    )
    listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
    port = listening.getHost().port
    text = "x" * 10_000

    try:
        with Line(port) as stuck, Line(port) as quick, Line(port) as sender:
            for subscriber in (stuck, quick):
                subscriber.send(b"SUBSCRIBE a")
                assert json.loads(await subscriber.read())["subscriptions"] == 1
            for i in range(1500):
                sender.send(f"PUBLISH a {i} {text}".encode())
                assert json.loads(await sender.read())["receivers"] == 2
                assert json.loads(await quick.read())["message"] == f"{i} {text}"
            assert topics.dropped_oldest > 0
            assert topics.delivered == 3000
    finally:
        await listening.stopListening()
        await factory.drain(1)
    assert len(topics) == 0
