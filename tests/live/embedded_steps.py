"""
An application with parts of ours on a reactor of its own, whose wall clock steps by an hour.

``python -m tests.live.embedded_steps REACTOR OFFSET`` prints ``done`` where nothing but the
displayed times followed the step. libfaketime must have been told a file by which it is set.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from tests.live.wall_steps import HOUR, set_wall
from tests.patience import until

LONG = 600
"""Seconds of the limits that are not reached."""


class Origin(Resource):
    """Answers 503 to the first request for ``/busy``, and nothing to ``/silent`` and ``/mute``."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # it has no types
        self.asked: dict[bytes, int] = {}

    def render_GET(self, request: Request) -> bytes | int:
        """Answer, or do not."""
        path = request.path
        self.asked[path] = self.asked.get(path, 0) + 1
        if path in (b"/silent", b"/mute"):
            return NOT_DONE_YET
        if path == b"/busy" and self.asked[path] == 1:
            request.setResponseCode(503)
        request.setHeader("Cache-Control", f"max-age={LONG}")
        return b"body"


async def step(reactor: Any, offset: float) -> None:  # Any: a reactor has many interfaces
    """Wait on both sides, step in between, and check what came of it."""
    from twisted_net.commands import standard_commands
    from twisted_net.errors import CallRefused, CallTimeout
    from twisted_net.http import Client, FetchTimeout, HttpSettings
    from twisted_net.http.retry import RetryPolicy
    from twisted_net.tcp import CommandClient, CommandFactory, Limits, server_endpoint

    commands = standard_commands()
    waiting: list[Deferred[None]] = []

    @commands.command()
    async def forever() -> None:
        """Wait until the time limit."""
        waiting.append(Deferred())
        await waiting[-1]

    factory = CommandFactory(reactor, commands, Limits(command_timeout=1.0))
    origin = Origin()
    ports = [reactor.listenTCP(0, one, interface="127.0.0.1") for one in (factory, Site(origin))]
    address = server_endpoint(reactor, "127.0.0.1", ports[0].getHost().port)
    root = f"http://127.0.0.1:{ports[1].getHost().port}"
    retry = RetryPolicy(retries=1, base=1.0, cap=1.0)
    client = Client(
        reactor, HttpSettings(timeout=LONG, retry=retry), chance=lambda: 1.0, environ={}
    )
    caller = CommandClient(reactor, address)
    async with client, caller:
        await client.get(f"{root}/page")
        busy, silent, hasty = (
            Deferred.fromCoroutine(work)
            for work in (
                client.get(f"{root}/busy"),
                client.get(f"{root}/silent"),
                client.get(f"{root}/mute", timeout=1.0),
            )
        )
        called, overdue = (
            Deferred.fromCoroutine(caller.call("FOREVER", timeout=limit)) for limit in (LONG, 0.9)
        )
        await until(reactor, lambda: len(origin.asked) == 4 and len(waiting) == 2)
        before = time.time()
        set_wall(Path(os.environ["FAKETIME_TIMESTAMP_FILE"]), offset)
        assert abs(time.time() - before) > HOUR / 2, "it has not stepped"

        page = await client.get(f"{root}/page")
        assert page.from_cache
        assert page.age is not None
        assert page.age < LONG
        errors = [await failure(one) for one in (hasty, called, overdue)]
        assert isinstance(errors[0], FetchTimeout), errors
        assert isinstance(errors[1], CallRefused), errors
        assert isinstance(errors[2], CallTimeout), errors
        answer = await busy
        assert (answer.status, answer.attempts) == (200, 2)
        assert not silent.called
        assert 0 < factory.sessions.uptime < LONG
        for _ in range(2):
            page = await client.get(f"{root}/new")
        assert page.from_cache
        assert origin.asked == {b"/page": 1, b"/busy": 2, b"/silent": 1, b"/mute": 1, b"/new": 1}
        silent.cancel()
        await failure(silent)
    await factory.drain(1.0)
    await gatherResults([port.stopListening() for port in ports])


async def failure(work: Deferred[Any]) -> BaseException:  # Any: of no interest
    """Return the exception by which a Deferred ends."""
    try:
        await work
    except Exception as error:
        return error
    raise AssertionError("it has succeeded")


def main() -> None:
    """Run it on the named reactor."""
    from twisted.application.reactors import installReactor

    name, offset = sys.argv[1:]
    installReactor(name)
    from twisted.internet.task import react

    async def run(reactor: Any) -> None:  # Any: as above
        await step(reactor, float(offset))
        sys.stdout.write("done\n")

    react(run)


if __name__ == "__main__":
    main()
