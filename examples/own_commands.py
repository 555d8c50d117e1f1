"""
Commands of your own: plain, async and blocking.

Served beside the standard ones by ``twistd -n net --commands own_commands:commands`` in this
folder, or by a :class:`~twisted_net.tcp.CommandFactory` that is given the registry.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from msgspec import Meta
from twisted.internet.task import deferLater

from twisted_net.commands import Commands, Fields, Request
from twisted_net.errors import CommandError

commands = Commands()


@commands.command()
def add(*numbers: float) -> float:
    """Add the numbers up."""
    return sum(numbers)


@commands.command()
def remember(request: Request, key: str, value: str | None = None) -> Fields:
    """Keep a value for as long as you are connected, or give it back."""
    if value is not None:
        request.session.data[key] = value
    elif key not in request.session.data:
        raise CommandError(f"there is nothing to remember as {key!r}")
    return Fields(key=key, value=request.session.data[key])


@commands.command()
async def wait(seconds: Annotated[float, Meta(ge=0, le=10)]) -> str:
    """Answer after some seconds; the lines after it run meanwhile."""
    from twisted.internet import reactor

    await deferLater(reactor, seconds)
    return f"waited {seconds:g} s"


@commands.command(blocking=True)
def digest(algorithm: Literal["sha256", "blake2b"], *words: str) -> str:
    """Hash the words, many times over, in a thread."""
    value = " ".join(words).encode()
    for _ in range(10_000):
        value = hashlib.new(algorithm, value).digest()
    return value.hex()
