"""Embed the command server in a Twisted application: ``python examples/embed_tcp.py [PORT]``."""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import react

from twisted_net.commands import standard_commands
from twisted_net.tcp import CommandFactory


# Any: a reactor is many interfaces at once.
async def main(reactor: Any, port: str = "0") -> None:
    """Serve the standard commands until Ctrl-C, which answers what is queued and closes."""
    factory = CommandFactory(reactor, standard_commands())
    endpoint = TCP4ServerEndpoint(reactor, int(port), interface="127.0.0.1")
    listening = await endpoint.listen(factory)
    reactor.addSystemEventTrigger("before", "shutdown", factory.drain, 10.0)
    print("listening on port", listening.getHost().port, flush=True)
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
