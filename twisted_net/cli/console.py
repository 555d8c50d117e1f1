"""``twisted-net console``: speaks to a server line by line, and shows events as they come."""

# mypy: disallow-untyped-calls=False
# As in calling: options have no types.

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.usage import UsageError

from twisted_net.cli.call import UNANSWERED, ClientOptions, parsed
from twisted_net.cli.run import run_to_the_end
from twisted_net.commands.arguments import split_arguments
from twisted_net.errors import CallError, CallRefused, CannotStart, CommandError
from twisted_net.net.addresses import format_address
from twisted_net.tcp.client import CommandClient

HISTORY_KEPT = 1000
"""Lines that the history holds; the older half is forgotten when there are twice as many."""

Fragments = list[tuple[str, str]]
"""Pieces of text, each after the name of its color, as prompt_toolkit takes them."""


def console(arguments: Sequence[str]) -> None:
    """
    Run the console until the person leaves it with Ctrl-D, ``quit`` or ``exit``.

    :raises SystemExit: with 0, or with 2 where the server cannot be reached.
    :raises CannotStart: where prompt_toolkit is missing.
    """
    options = parsed(ClientOptions(), "console", arguments)
    try:
        import prompt_toolkit  # noqa: F401  # whether it is there
    except ImportError:
        raise CannotStart(
            'the console needs prompt_toolkit: pip install "twisted_net[console]"'
        ) from None
    # prompt_toolkit waits for keys in asyncio's loop alone.
    from twisted.internet import asyncioreactor

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    asyncioreactor.install(loop)

    async def run(reactor: Any) -> None:  # Any: reactors have no one type
        try:
            async with options.client(reactor) as client:
                await _converse(client, f"{format_address(options.host, options.port)}> ")
        except (CallError, UsageError) as error:
            sys.stderr.write(f"twisted-net console: {error}\n")
            raise SystemExit(UNANSWERED) from None

    run_to_the_end(run)


async def _converse(client: CommandClient, prompt: str) -> None:
    """Read lines and show what comes, until the person leaves."""
    from prompt_toolkit import PromptSession, print_formatted_text
    from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.formatted_text import FormattedText
    from prompt_toolkit.history import InMemoryHistory
    from prompt_toolkit.patch_stdout import patch_stdout

    def show(value: object) -> None:
        print_formatted_text(FormattedText(colored(value)))

    async def show_events() -> None:
        async for event in client.events():
            show(event)

    names, usages = await known_commands(client)
    lines = LineHistory(history_path())
    session: PromptSession[str] = PromptSession(
        prompt,
        history=InMemoryHistory(lines.load()),
        completer=WordCompleter(names, ignore_case=True, meta_dict=usages, sentence=True),
        auto_suggest=AutoSuggestFromHistory(),
        complete_while_typing=False,
    )
    with patch_stdout():
        showing = Deferred.fromCoroutine(show_events())
        try:
            while True:
                try:
                    line = await Deferred.fromFuture(asyncio.ensure_future(session.prompt_async()))
                except KeyboardInterrupt:
                    continue  # a line that was given up
                except EOFError:
                    return
                if line.strip().lower() in ("quit", "exit"):
                    return
                if line.strip():
                    lines.add(line)
                    show(await ask(client, line))
        finally:
            await client.close()
            await showing


async def known_commands(client: CommandClient) -> tuple[list[str], dict[str, str]]:
    """Ask for the commands: names, and by name usage and help; there are none if it is refused."""
    try:
        commands = (await client.call("HELP"))["commands"]
    except CallRefused:
        return [], {}
    usages = {command["name"]: f"{command['usage']}: {command['help']}" for command in commands}
    return list(usages), usages


async def ask(client: CommandClient, line: str) -> Mapping[str, object]:
    """
    Have a line as a person types it run, and give what to show: the answer, or the error.

    What it subscribes to is kept when the connection is made anew.
    """
    try:
        words = split_arguments(line)
        match [words[0].upper(), *words[1:]]:
            case ["SUBSCRIBE", pattern, *when_slow] if len(when_slow) < 2:
                return await client.subscribe(pattern, *when_slow)
            case ["UNSUBSCRIBE", pattern]:
                return await client.unsubscribe(pattern)
        return await client.call(*words)
    except CallRefused as error:
        return error.answer
    except (CallError, CommandError) as error:
        return {"error": str(error), "code": error.code}
    except ValueError as error:
        return {"error": str(error)}


def colored(value: object) -> Fragments:
    """Write a value as JSON, with a color for each kind of thing."""
    text = json.dumps(value, ensure_ascii=False)
    return [(_COLORS[match.lastgroup or ""], _shown(match[0])) for match in _JSON.finditer(text)]


_JSON = re.compile(
    r'(?P<error>"error"(?=: ))|(?P<event>"event"(?=: ))|(?P<name>"(?:[^"\\]|\\.)*"(?=: ))'
    r'|(?P<text>"(?:[^"\\]|\\.)*")|(?P<number>-?\d[\d.eE+-]*)|(?P<word>true|false|null)'
    r"|(?P<rest>[\[\]{}:, ]+)"
)
_COLORS = {
    "error": "ansired bold",
    "event": "ansimagenta bold",
    "name": "ansicyan",
    "text": "ansigreen",
    "number": "ansiyellow",
    "word": "ansiblue",
    "rest": "",
}


def _shown(text: str) -> str:
    # C1 controls and the like steer a terminal, and JSON does not escape them.
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def history_path() -> Path:
    """Give the file of the history, where the XDG Base Directory Specification puts it."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "twisted_net" / "history"


class LineHistory:
    """
    The lines of former consoles, in a file that its owner alone may read.

    Lines with AUTH are never kept. A file that cannot be used is done without.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> list[str]:
        """Give the lines, oldest first, at most :data:`HISTORY_KEPT`."""
        try:
            lines = self._path.read_text(errors="replace").splitlines()
        except OSError:
            return []
        if len(lines) > 2 * HISTORY_KEPT:
            self._write(lines[-HISTORY_KEPT:], os.O_TRUNC)
        return lines[-HISTORY_KEPT:]

    def add(self, line: str) -> None:
        """Keep a line."""
        if line.split(None, 1)[0].upper() != "AUTH":
            self._write([line], os.O_APPEND)

    def _write(self, lines: Iterable[str], how: int) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | how, 0o600)
        except OSError:
            return
        with os.fdopen(descriptor, "w") as file:
            file.writelines(line + "\n" for line in lines)
