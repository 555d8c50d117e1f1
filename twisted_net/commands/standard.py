"""Standard commands: ECHO, TIME, PING, STATS, BROADCAST, HELP, FETCH and AUTH."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from twisted_net.broadcasts import Delivery
from twisted_net.commands.admin import declare_administration
from twisted_net.commands.registry import Command, Commands, Fields, Request
from twisted_net.commands.topics import declare_topics
from twisted_net.config.type_checks import check_arguments
from twisted_net.errors import CommandError, UnknownCommand
from twisted_net.ops.timestamps import iso_time
from twisted_net.reasons import End, Refusal
from twisted_net.sessions.session import Session
from twisted_net.topics.settings import BROADCAST
from twisted_net.turns.steps import CLIENTS_AT_ONCE

FAILURES_SHOWN = 20
"""Clients that BROADCAST names of those that it did not reach; all of them are counted."""

Fetch = Callable[[str], Awaitable[Mapping[str, object]]]
"""Gets a URL; returns the members of FETCH's answer."""

LogIn = Callable[[Session, str, str], Awaitable[str]]
"""Logs a client in, by user and password, or by a token and no password; returns the user."""


@check_arguments
def standard_commands(fetch: Fetch | None = None, log_in: LogIn | None = None) -> Commands:
    """
    Return a registry of the standard commands, those of topics, and those of an operator.

    :param fetch: gets a URL for FETCH, which is left out if None.
    :param log_in: logs a client in for AUTH, which is left out if None.
    """
    commands = Commands()
    declare = commands.command
    declare("ECHO", help="Return the arguments, joined by one space.", safe=True)(_echo)
    declare("TIME", help="Time of the server, ISO 8601 with offset.", safe=True)(_time)
    declare("PING", help="Answer PONG: the server is alive.", safe=True)(_ping)
    declare("STATS", help="Figures of this server.", safe=True)(_stats)
    declare("BROADCAST", help="Send a message to every client, the sender included.")(_broadcast)
    declare("HELP", help="The commands, or one command, with their arguments.", safe=True)(_help)
    declare_topics(commands)
    declare_administration(commands)
    if fetch is not None:
        declare("FETCH", help="Get a URL over HTTP, from the cache while it is fresh.")(
            _fetch_with(fetch)
        )
    if log_in is not None:
        help_line = "Log in: the user and the password, or a token alone."
        declare("AUTH", help=help_line, alone=True, secret=True)(_auth_with(log_in))
    return commands


def acknowledge(request: Request, text: str) -> dict[str, object]:
    """Fallback for :class:`Commands`: acknowledge any line, as the original server did."""
    return {
        "status": "success",
        "message": f"received: {text}",
        "client": list(request.session.client),
    }


def _echo(*words: str) -> str:
    return " ".join(words)


def _time(request: Request) -> str:
    return iso_time(request.session.sessions.wall())


def _ping() -> str:
    return "PONG"


def _stats(request: Request) -> Fields:
    sessions = request.session.sessions
    return Fields(
        message_count=sessions.messages,
        connections=len(sessions),
        clients=sessions.doors.counts(),
        connections_opened=sessions.counters.opened,
        connections_ended={end.value: sessions.counters.ended[end] for end in End},
        refused={refusal.value: sessions.counters.refusals[refusal] for refusal in Refusal},
        undelivered=sessions.counters.undelivered,
        topics=sessions.topics.figures(),
        uptime=round(sessions.uptime, 3),
        **{name: figure() for name, figure in sessions.figures.items()},
    )


def _broadcast(request: Request, *words: str) -> Fields | Awaitable[Fields]:
    if not words:
        raise CommandError("there is no message to broadcast")
    session = request.session
    if session.permissions is not None:
        session.permissions.check_publish(BROADCAST)
    event = {"event": "broadcast", "from": session.name, "message": " ".join(words)}
    broadcasts = session.sessions.broadcasts
    if broadcasts.sending or len(broadcasts) > CLIENTS_AT_ONCE:
        return _spread(session, event)
    return _outcome(session.sessions.broadcast(event))


async def _spread(session: Session, event: Mapping[str, object]) -> Fields:
    return _outcome(await session.sessions.spread(event, session))


def _outcome(delivery: Delivery) -> Fields:
    return Fields(
        delivered=delivery.delivered,
        failed=len(delivery.failures),
        failures=dict(list(delivery.failures.items())[:FAILURES_SHOWN]),
    )


def _help(request: Request, command: str | None = None) -> Fields:
    if command is None:
        usable = [known for known in request.commands if request.may_run(known)]
        return Fields(commands=[_description(known) for known in usable])
    known = request.commands.get(command)
    # To a client that may not run it there is no such command.
    if known is None or not request.may_run(known):
        raise UnknownCommand(command)
    return Fields(commands=[_description(known)])


def _fetch_with(fetch: Fetch) -> Callable[[str], Awaitable[Fields]]:
    async def answer(url: str) -> Fields:
        return Fields(**await fetch(url))

    return answer


def _auth_with(log_in: LogIn) -> Callable[[Request, str, str], Awaitable[Fields]]:
    async def answer(request: Request, user_or_token: str, password: str = "") -> Fields:
        session = request.session
        user = await log_in(session, user_or_token, password)
        later = None if session.ended else session.sessions.hooks.logged_in(session)
        if later is not None:
            await later
        return Fields(user=user)

    return answer


def _description(command: Command) -> dict[str, str]:
    return {
        "name": command.name,
        "usage": command.usage,
        "help": command.help,
        "kind": command.kind.value,
    }
