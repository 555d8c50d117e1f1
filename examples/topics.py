"""
A server that publishes measurements: ``python examples/topics.py [PORT]``.

Every second it publishes the temperature of two towns to the topics ``weather.<town>``. Try it with
``twisted-net console 127.0.0.1:PORT`` and ``SUBSCRIBE weather.>``.
"""

from __future__ import annotations

import random
import sys
import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import LoopingCall, react

from twisted_net.commands import standard_commands
from twisted_net.sessions import Sessions
from twisted_net.tcp import CommandFactory
from twisted_net.topics import Topics, TopicSettings


# Any: a reactor is many interfaces at once.
async def main(reactor: Any, port: str = "0") -> None:
    """Serve and publish until Ctrl-C."""
    # Old temperatures are of no use: clients that read too slowly get the newest.
    topics = Topics(TopicSettings(when_slow="drop_oldest", max_queue=65_536))
    factory = CommandFactory(reactor, standard_commands(), sessions=Sessions(time.time, topics))

    def measure() -> None:
        for town in ("oslo", "quito"):
            topics.publish(f"weather.{town}", f"{random.uniform(-5, 25):.1f} °C")

    measuring = LoopingCall(measure)
    measuring.clock = reactor
    endpoint = TCP4ServerEndpoint(reactor, int(port), interface="127.0.0.1")
    listening = await endpoint.listen(factory)
    ended = measuring.start(1.0)
    ended.addErrback(lambda failure: failure.printTraceback())
    reactor.addSystemEventTrigger("before", "shutdown", measuring.stop)
    reactor.addSystemEventTrigger("before", "shutdown", factory.drain, 10.0)
    print("listening on port", listening.getHost().port, flush=True)
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
