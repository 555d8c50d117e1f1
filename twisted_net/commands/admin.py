"""Administrative commands: CLIENTS, CLOSED, PRESENCE, KILL, INFO, SLOWLOG, MONITOR, LATENCY."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Annotated, Literal, TypeVar

from msgspec import Meta

from twisted_net.commands.registry import Commands, Fields, Request
from twisted_net.commands.topics import mailbox_figures
from twisted_net.errors import CommandError
from twisted_net.net.addresses import spellings_of
from twisted_net.ops.latency import PROBE_INTERVAL, SPIKES_KEPT
from twisted_net.ops.long_turns import LongTurn
from twisted_net.ops.monitor import LINES_PER_SECOND, MAX_PER_SECOND
from twisted_net.ops.slowlog import SlowCommand
from twisted_net.ops.timestamps import iso_time
from twisted_net.sessions.bans import LONGEST_BAN
from twisted_net.sessions.counters import CLOSED_KEPT, Closed
from twisted_net.sessions.presence import Identity
from twisted_net.sessions.registry import Sessions
from twisted_net.sessions.session import Session
from twisted_net.turns.steps import END, ENDS_AT_ONCE, in_steps

LISTED_AT_ONCE = 128
"""Entries that CLIENTS, CLOSED or SLOWLOG makes in one turn of the reactor: 1 ms."""

BANS_SHOWN = 100
"""Bans that INFO shows; all of them are counted."""

_DURATION = re.compile("([0-9]{1,7})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

_T = TypeVar("_T")

Reset = Literal["reset"]


def declare_administration(commands: Commands) -> None:
    """Add CLIENTS, CLOSED, PRESENCE, KILL, INFO, SLOWLOG, MONITOR and LATENCY to a registry."""
    for name, handler, safe, words in (
        ("CLIENTS", _clients, True, "Connected clients, oldest first, each with its figures."),
        ("CLOSED", _closed, True, "Connections that ended, latest first, each with the reason."),
        ("PRESENCE", _presence, True, "Who is there, by user or address, and who has gone."),
        ("KILL", _kill, False, "End the connections of a client, a user or an address."),
        ("INFO", _info, True, "Information about the server, or one section of it."),
        (
            "SLOWLOG",
            _slowlog,
            False,
            "Commands that took long, latest first; reset drops them.",
        ),
        (
            "MONITOR",
            _monitor,
            False,
            "Watch other clients' commands, so many a second; off ends it.",
        ),
        (
            "LATENCY",
            _latency,
            False,
            "How late the reactor runs its timers, and its long turns; reset starts again.",
        ),
    ):
        # CoAP peers share one resource of events: all would be shown what one may see.
        connected = handler is _monitor
        commands.command(name, help=words, admin=True, connected=connected, safe=safe)(handler)


def _clients(
    request: Request, limit: Annotated[int, Meta(ge=1, le=1000)] = 100
) -> Fields | Awaitable[Fields]:
    sessions = request.session.sessions
    doors = sessions.doors
    answer = {"count": sum(doors.counts().values())}
    return _listed(sessions, answer, "clients", islice(doors.clients(), limit), _figures)


def _closed(
    request: Request, limit: Annotated[int, Meta(ge=1, le=CLOSED_KEPT)] = 100
) -> Fields | Awaitable[Fields]:
    sessions = request.session.sessions
    answer = {"count": sessions.doors.closed_count()}
    latest = islice(sessions.doors.closed(), limit)
    return _listed(sessions, answer, "clients", latest, _closed_figures)


def _presence(
    request: Request, limit: Annotated[int, Meta(ge=1, le=1000)] = 100
) -> Fields | Awaitable[Fields]:
    sessions = request.session.sessions
    presence = sessions.doors.presence
    answer = {"present": len(presence), "gone": presence.gone}
    found = islice(presence, limit)
    return _listed(sessions, answer, "identities", found, _identity_figures)


def _listed(
    sessions: Sessions,
    answer: Mapping[str, object],
    name: str,
    entries: Iterable[_T],
    figures: Callable[[_T], dict[str, object]],
) -> Fields | Awaitable[Fields]:
    """Add a list of figures to an answer; those of many are found over turns of the reactor."""
    found = list(entries)
    if len(found) <= LISTED_AT_ONCE:
        return Fields(**answer, **{name: [figures(entry) for entry in found]})
    shown: list[dict[str, object]] = []

    def work() -> Iterator[float]:
        for entry in found:
            shown.append(figures(entry))
            yield 1 / LISTED_AT_ONCE

    async def answer_later() -> Fields:
        await sessions.pacing(in_steps(work()))
        return Fields(**answer, **{name: shown})

    return answer_later()


def _kill(
    request: Request, what: Literal["client", "user", "address"], name: str, *reason: str
) -> Fields | Awaitable[Fields]:
    sessions = request.session.sessions
    seconds, words = _ban(reason)
    why = " ".join(words)
    if what == "client":
        targets = sessions.doors.named(name)
        if not targets:
            raise CommandError(f"there is no client {name}; CLIENTS lists them")
    elif what == "user":
        targets = sessions.of_user(name)
    else:
        hosts = spellings_of(name)
        targets = [session for session in sessions.doors.clients() if session.client[0] in hosts]
    banned: dict[str, object] = {}
    if seconds is not None:
        banned["banned"] = seconds
        for kind, who in _banned(what, name, targets):
            sessions.doors.bans.add(kind, who, seconds)
            sessions.audit("banned", request.session, f"{kind} {who} for {seconds} s")
    if seconds == 0:
        return Fields(killed=0, banned=0)
    if len(targets) <= ENDS_AT_ONCE:
        return Fields(killed=sum(session.kill(why) for session in targets), **banned)
    killed = 0
    if request.session in targets:
        # Now, while its line runs: its answer then leaves before it is ended.
        targets.remove(request.session)
        killed += request.session.kill(why)

    def work() -> Iterator[float]:
        nonlocal killed
        for session in targets:
            killed += session.kill(why)
            yield END

    async def answer() -> Fields:
        await sessions.pacing(in_steps(work()))
        return Fields(killed=killed, **banned)

    return answer()


def _ban(reason: tuple[str, ...]) -> tuple[int | None, tuple[str, ...]]:
    """
    Return the seconds of a ban, None for none, and the words of the reason: ``FOR 10m too noisy``.

    :raises CommandError: for a ban that is too long.
    """
    if len(reason) < 2 or reason[0] != "FOR" or (found := _DURATION.fullmatch(reason[1])) is None:
        return None, reason
    seconds = int(found[1]) * _UNITS[found[2]]
    if seconds > LONGEST_BAN:
        raise CommandError(f"a ban lasts {LONGEST_BAN // 86_400}d at most")
    return seconds, reason[2:]


def _banned(what: str, name: str, targets: Iterable[Session]) -> list[tuple[str, str]]:
    """Return whom to ban: of a client its user, or else its address."""
    if what != "client":
        return [(what, name)]
    return [
        ("address", session.client[0]) if session.user is None else ("user", session.user)
        for session in targets
    ]


def _bans(session: Session) -> dict[str, object]:
    bans = [
        {"kind": kind, "name": name, "left": math.ceil(left)}
        for kind, name, left in session.sessions.doors.bans
    ]
    return {"count": len(bans), "latest": bans[: -BANS_SHOWN - 1 : -1]}


def _info(request: Request, section: str | None = None) -> Fields:
    session = request.session
    sections = session.sessions.sections | {
        "bans": lambda: _bans(session),
        "clients": lambda: _client_figures(session),
        "commands": lambda: {
            command.name: command.calls for command in request.commands if command.calls
        },
        "topics": session.sessions.topics.figures,
        "latency": lambda: _lateness(session),
    }
    if section is None:
        return Fields(**{name: sections[name]() for name in sorted(sections)})
    if section not in sections:
        known = ", ".join(sorted(sections))
        raise CommandError(f"there is no section {section[:64]}; there are {known}")
    return Fields(**{section: sections[section]()})


def _slowlog(
    request: Request,
    limit: Annotated[int, Meta(ge=1, le=10_000)] | Reset = 10,
) -> Fields | Awaitable[Fields]:
    sessions = request.session.sessions
    slow_log = sessions.instruments.slow_log
    if limit == "reset":
        return Fields(forgotten=slow_log.reset())
    settings = slow_log.settings
    answer = {
        "count": slow_log.count,
        "kept": len(slow_log),
        "threshold": settings.threshold,
        "waiting_threshold": settings.waiting_threshold,
    }
    return _listed(sessions, answer, "slow", slow_log.latest(limit), _slow_figures)


def _monitor(
    request: Request,
    per_second: Annotated[int, Meta(ge=1, le=MAX_PER_SECOND)] | Literal["off"] = LINES_PER_SECOND,
) -> Fields:
    session = request.session
    monitors = session.sessions.instruments.monitors
    if per_second == "off":
        monitors.remove(session)
        return Fields(watching=False)
    # A handler of an application's own may be called for any session.
    if not session.has_connection:
        raise CommandError("MONITOR needs a connection of its own, which this client has not")
    monitors.add(session, per_second)
    return Fields(watching=True, per_second=per_second)


def _latency(
    request: Request,
    limit: Annotated[int, Meta(ge=1, le=SPIKES_KEPT)] | Reset = 10,
) -> Fields:
    session = request.session
    latency = session.sessions.instruments.latency
    long_turns = session.sessions.instruments.long_turns
    if limit == "reset":
        latency.reset()
        long_turns.reset()
        return Fields(**_lateness(session))
    spikes = [
        {"at": iso_time(spike.at), "seconds": round(spike.seconds, 6)}
        for spike in latency.spikes(limit)
    ]
    figures = _lateness(session)
    longest = long_turns.longest
    figures["long_turns"] = {
        **_long_turns(session),
        "longest": None if longest is None else _long_turn(longest),
        "latest": [_long_turn(turn) for turn in long_turns.latest(limit)],
    }
    return Fields(**figures, spikes=spikes)


def _figures(session: Session) -> dict[str, object]:
    return {
        "client": session.name,
        "door": session.sessions.door,
        "user": session.user,
        "connected": iso_time(session.connected),
        "messages": session.messages,
        "received": session.received,
        "sent": session.sent,
        "undelivered": session.undelivered,
        **mailbox_figures(session),
        **session.figures(),
    }


def _closed_figures(ended: Closed) -> dict[str, object]:
    return {
        "client": ended.name,
        "door": ended.door,
        "user": ended.user,
        "connected": iso_time(ended.connected),
        "ended": iso_time(ended.ended),
        "messages": ended.messages,
        "reason": ended.end.value,
    }


def _identity_figures(identity: Identity) -> dict[str, object]:
    return {
        "kind": identity.kind,
        "name": identity.name,
        "present": identity.connections > 0,
        "connections": identity.connections,
        "first_seen": iso_time(identity.first_seen),
        "since": iso_time(identity.since),
    }


def _slow_figures(slow: SlowCommand) -> dict[str, object]:
    return {
        "number": slow.number,
        "at": iso_time(slow.at),
        "seconds": round(slow.seconds, 6),
        "waited": slow.waited,
        "client": slow.client,
        "user": slow.user,
        "line": slow.line,
    }


def _client_figures(session: Session) -> Mapping[str, object]:
    sessions = session.sessions
    return {
        "connections": len(sessions),
        "doors": sessions.doors.counts(),
        "opened": sessions.counters.opened,
        "messages": sessions.messages,
        "received": sessions.counters.received + sum(client.received for client in sessions),
        "sent": sessions.counters.sent + sum(client.sent for client in sessions),
        "undelivered": sessions.counters.undelivered,
        "failures": sessions.counters.failures,
        "overdue": sessions.counters.overdue,
        "slow": sessions.instruments.slow_log.count,
        "monitors": len(sessions.instruments.monitors),
    }


def _lateness(session: Session) -> dict[str, object]:
    lateness = session.sessions.instruments.latency.lateness
    return {
        "interval": PROBE_INTERVAL,
        "samples": lateness.count,
        "p50": round(lateness.quantile(0.5), 6),
        "p99": round(lateness.quantile(0.99), 6),
        "max": round(lateness.maximum, 6),
        "long_turns": _long_turns(session),
    }


def _long_turns(session: Session) -> dict[str, object]:
    long_turns = session.sessions.instruments.long_turns
    return {
        "measured": long_turns.measured,
        "threshold": long_turns.settings.long_turn,
        "count": long_turns.count,
    }


def _long_turn(turn: LongTurn) -> dict[str, object]:
    return {
        "at": iso_time(turn.at),
        "seconds": round(turn.seconds, 6),
        "cpu": None if turn.cpu is None else round(turn.cpu, 6),
        "callback": turn.callback,
        "where": turn.where,
    }
