"""``twisted-net console``: an interactive client of a command server, which also shows events."""

# mypy: disallow-untyped-calls=False
# As in call.py: options are untyped.

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.python.usage import UsageError

from twisted_net.cli.call import UNANSWERED, ClientOptions
from twisted_net.cli.command_line import parse_or_exit, print_error
from twisted_net.cli.run import run_until_done
from twisted_net.commands.arguments import split_arguments
from twisted_net.errors import CallError, CallRefused, CannotStart, CommandError
from twisted_net.net.addresses import format_address
from twisted_net.net.characters import printable_json
from twisted_net.net.files import read_file
from twisted_net.net.reactor import Reactor
from twisted_net.tcp.client import CommandClient

HISTORY_LIMIT = 1000
"""Lines of history to keep; at twice this number, the older half is deleted."""

MAX_HISTORY_SIZE = 64 << 20
"""Bytes of the file of the history; the longest lines that a server takes have 16 MiB."""

Fragments = list[tuple[str, str]]
"""Formatted text of prompt_toolkit: pairs of a style and a text."""


def console(arguments: Sequence[str]) -> None:
    """
    Run the console until Ctrl-D, ``quit`` or ``exit``.

    :raises SystemExit: with 0, or with :data:`~twisted_net.cli.call.UNANSWERED` if the server
        cannot be reached.
    :raises CannotStart: if prompt_toolkit is not installed.
    """
    options = parse_or_exit(ClientOptions(), "console", arguments)
    try:
        import prompt_toolkit  # noqa: F401  # is it installed?
    except ImportError:
        raise CannotStart(
            'the console requires an extra: pip install "twisted_net[console]"'
        ) from None
    # prompt_toolkit reads keys in an asyncio event loop only.
    from twisted.internet import asyncioreactor

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    asyncioreactor.install(loop)

    async def run(reactor: Reactor) -> None:
        try:
            async with options.client(reactor) as client:
                await _read_and_show(client, f"{format_address(options.host, options.port)}> ")
        except (CallError, UsageError) as error:
            print_error("console", error)
            raise SystemExit(UNANSWERED) from None

    run_until_done(run)


async def _read_and_show(client: CommandClient, prompt: str) -> None:
    """Read lines, and show answers and events, until the user quits."""
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
                    continue  # the user abandoned the line
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
    """Return the names of the commands, and usage and help by name; empty if HELP is refused."""
    try:
        commands = (await client.call("HELP"))["commands"]
    except CallRefused:
        return [], {}
    usages = {command["name"]: f"{command['usage']}: {command['help']}" for command in commands}
    return list(usages), usages


async def ask(client: CommandClient, line: str) -> Mapping[str, object]:
    """
    Send a line that a user typed, and return what to show: the answer, or the error.

    Subscriptions are renewed after a reconnection.
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
    """Return a value as JSON, with a color for each kind of token."""
    text = json.dumps(value, ensure_ascii=False)
    return [
        (_COLORS[match.lastgroup or ""], printable_json(match[0])) for match in _JSON.finditer(text)
    ]


_JSON = re.compile(
    r'(?P<error>"error"(?=: ))|(?P<event>"event"(?=: ))|(?P<name>"(?:[^"\\]|\\.)*+"(?=: ))'
    r'|(?P<text>"(?:[^"\\]|\\.)*+"?)|(?P<number>-?\d[\d.eE+-]*)|(?P<word>true|false|null)'
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


def history_path() -> Path:
    """Return the path of the history file (XDG Base Directory Specification)."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "twisted_net" / "history"


class LineHistory:
    """
    The history of lines, in a file that only its owner can read.

    Lines with AUTH are never stored. If the file cannot be used, there is no history.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> list[str]:
        """Return the lines, oldest first, at most :data:`HISTORY_LIMIT`."""
        try:
            content = read_file(str(self._path), MAX_HISTORY_SIZE)
        except OSError:
            return []
        lines = content.decode(errors="replace").splitlines()
        if len(lines) > 2 * HISTORY_LIMIT:
            self._write(lines[-HISTORY_LIMIT:], os.O_TRUNC)
        return lines[-HISTORY_LIMIT:]

    def add(self, line: str) -> None:
        """Store a line."""
        if line.split(None, 1)[0].upper() != "AUTH":
            self._write([line], os.O_APPEND)

    def _write(self, lines: Iterable[str], how: int) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Not to wait for a reader, should it be a pipe.
            flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC | how
            descriptor = os.open(self._path, flags, 0o600)
        except OSError:
            return
        with os.fdopen(descriptor, "w") as file:
            file.writelines(line + "\n" for line in lines)
