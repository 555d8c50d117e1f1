"""Helpers that run lines of commands in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from twisted_net.commands.registry import Commands, Request, Waiting
from twisted_net.commands.runner import CommandRunner, RunnerLimits
from twisted_net.sessions import Session, Sessions

Answer = dict[str, Any]  # Any: whatever JSON holds


def run_line(commands: Commands, line: bytes, session: Session) -> bytes | Waiting:
    """Run the command in one line as every door that receives lines does."""
    runner = CommandRunner(Clock(), commands, session.sessions, RunnerLimits(30.0, 8))
    return runner.answer(line, session)


def nobody(line: bytes) -> None:
    """Take an event, and drop it."""


def new_session() -> Session:
    """Open the session of a client in a registry of its own."""
    return Sessions(lambda: 0.0).open("192.0.2.1", 5000, nobody)


def finish(answer: bytes | Waiting) -> bytes:
    """Give the answer, awaited where it is to come."""
    if isinstance(answer, bytes):
        return answer
    taken: list[object] = []
    value = answer.start()

    async def wait() -> object:
        return await value if hasattr(value, "__await__") else value

    Deferred.fromCoroutine(wait()).addBoth(taken.append)
    return answer.answer(taken[0])


def answer_to(commands: Commands, line: str | bytes) -> Answer:
    """Answer one line, which must be a line of JSON, and decode it."""
    raw = finish(
        run_line(commands, line.encode() if isinstance(line, str) else line, new_session())
    )
    assert raw.endswith(b"\n")
    assert raw.count(b"\n") == 1
    decoded: Answer = json.loads(raw)
    return decoded


def registry(handler: Callable[..., object], name: str = "TRY", **options: Any) -> Commands:
    """Give a registry of one command."""
    commands = Commands()
    commands.command(name, **options)(handler)
    return commands


def with_hints(handler: Callable[..., object], **hints: object) -> Callable[..., object]:
    """Annotate a handler with types that are known at run time only."""
    handler.__annotations__.update(hints)
    return handler


def echo(*words: str) -> list[str]:
    """Give the words back."""
    return list(words)


def parrot(request: Request, text: str) -> str:
    """Give the text back: a fallback."""
    return text
