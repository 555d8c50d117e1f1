"""
A server that greets its clients, and tells all others who comes and goes.

Run ``python examples/session_hooks.py [PORT]``, and connect twice with
``twisted-net console 127.0.0.1:PORT``.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import react

from twisted_net.commands import standard_commands
from twisted_net.errors import CommandError
from twisted_net.reasons import End
from twisted_net.sessions import Session, SessionHooks, Sessions
from twisted_net.tcp import CommandFactory

hooks = SessionHooks()


@hooks.on_open
def welcome(session: Session) -> None:
    """Greet a client, or refuse it."""
    if len(session.sessions) > 100:
        raise CommandError("the room is full")
    session.sessions.broadcast({"event": "came", "who": session.name})
    session.send({"event": "hello", "others": len(session.sessions) - 1})


@hooks.on_subscribe
async def own_topic(session: Session, pattern: str) -> str | None:
    """Let ``mine`` stand for a topic of each client's own."""
    return f"client.{session.client[1]}" if pattern == "mine" else None


@hooks.on_close
def farewell(session: Session, end: End) -> None:
    """Tell the others that a client has gone."""
    session.sessions.broadcast({"event": "went", "who": session.name, "why": end.value})


# Any: a reactor is many interfaces at once.
async def main(reactor: Any, port: str = "0") -> None:
    """Serve until Ctrl-C."""
    sessions = Sessions(time.time, hooks=hooks)
    factory = CommandFactory(reactor, standard_commands(), sessions=sessions)
    listening = await TCP4ServerEndpoint(reactor, int(port), interface="127.0.0.1").listen(factory)
    reactor.addSystemEventTrigger("before", "shutdown", factory.drain, 10.0)
    print("listening on port", listening.getHost().port, flush=True)
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
