"""``twisted-net discover``: lists the servers that announce themselves to a multicast group."""

# mypy: disallow-untyped-calls=False
# The base class of the options is untyped.

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import CannotListenError
from twisted.python.usage import Options, UsageError

from twisted_net.cli.command_line import parse_or_exit
from twisted_net.cli.numbers import integer, out_of_bounds, seconds
from twisted_net.cli.run import INTERRUPTED, run_until_done
from twisted_net.discovery.announcements import ChangeKind, InstanceChange
from twisted_net.discovery.service import DiscoveryListener
from twisted_net.discovery.settings import DEFAULT_GROUP, DEFAULT_PORT, DiscoveryGroup
from twisted_net.net.characters import printable_json
from twisted_net.net.reactor import DatagramReactor

NOT_FOUND = 1
"""Exit status if no server was found."""

UNUSABLE = 2
"""Exit status if the group cannot be used; standard error has the reason."""

DEFAULT_TIMEOUT = 3.0
"""Seconds to wait for servers: they answer a query within one."""

LONGEST_TIMEOUT = 86_400
"""Seconds to wait for servers, at most: a day, as for a call."""


class DiscoverOptions(Options):
    """Options of ``discover``: which group to join, and for how long."""

    synopsis = "Usage: twisted-net discover [options]"
    longdesc = (
        "Prints one line of JSON for each server; the exit status is 1 if there is none. "
        "Announcements are not authenticated."
    )
    optFlags: ClassVar[list[list[Any]]] = [  # Any: as usage.Options has them
        ["watch", "w", "run until Ctrl-C, and print each server that is found, changed or lost"],
    ]
    optParameters: ClassVar[list[list[Any]]] = [  # Any: as above
        [
            "timeout",
            "t",
            None,
            f"seconds to wait for servers, {DEFAULT_TIMEOUT:g} by default; not with --watch",
            seconds("timeout"),
        ],
        ["group", "g", DEFAULT_GROUP, "multicast or broadcast address"],
        ["port", "p", DEFAULT_PORT, "port of the group", integer("port")],
        ["interface", "i", None, "network interface, by name or IPv4 address"],
    ]

    def postOptions(self) -> None:
        """Check values and combinations."""
        timeout = self["timeout"]
        if timeout is not None and self["watch"]:
            raise UsageError("--timeout is not for --watch, which runs until Ctrl-C")
        self.timeout = DEFAULT_TIMEOUT if timeout is None else timeout
        if not 0 < self.timeout <= LONGEST_TIMEOUT:
            raise UsageError(
                f"--timeout must be a number above 0 and of at most {LONGEST_TIMEOUT}, "
                f"not {timeout}"
            )
        interfaces = (self["interface"],) if self["interface"] else ()
        try:
            self.group = DiscoveryGroup(
                group=self["group"], port=self["port"], interfaces=interfaces
            )
        except ValueError as error:
            raise out_of_bounds(error, interfaces="interface") from None


def discover(arguments: Sequence[str]) -> None:
    """
    Run the subcommand.

    :raises SystemExit: with 0, one of the statuses above,
        :data:`~twisted_net.cli.command_line.MISTAKE`, or one of
        :func:`~twisted_net.cli.run.run_until_done`; with ``--watch``, Ctrl-C means 0.
    """
    options = parse_or_exit(DiscoverOptions(), "discover", arguments)
    group = options.group

    async def search(reactor: DatagramReactor) -> None:
        try:
            found = await show(reactor, group, options.timeout, watch=options["watch"])
        except CancelledError:
            # With --watch, this is the normal end.
            raise SystemExit(0 if options["watch"] else INTERRUPTED) from None
        except CannotListenError as error:
            sys.stderr.write(f"cannot use {group.group}: {_reason(error)}\n")
            raise SystemExit(UNUSABLE) from None
        if not found:
            raise SystemExit(NOT_FOUND)

    run_until_done(search)


async def show(
    reactor: DatagramReactor,
    group: DiscoveryGroup,
    timeout: float,
    *,
    watch: bool = False,
) -> int:
    """
    Print the servers that are found.

    :param watch: run until cancelled, and print changes and losses too.
    :return: the number of servers found.
    :raises CannotListenError: if the group cannot be joined.
    :raises BrokenPipeError: if nobody reads standard output any more.
    """
    found = 0
    ended: Deferred[None] = Deferred()

    def changed(change: InstanceChange) -> None:
        nonlocal found
        found += change.kind is ChangeKind.FOUND
        if watch or change.kind is ChangeKind.FOUND:
            try:
                sys.stdout.write(format_change(change, watch=watch))
                sys.stdout.flush()
            except BrokenPipeError:
                if not ended.called:
                    ended.errback()

    listener = DiscoveryListener(reactor, reactor, group, changed)
    listener.startService()
    try:
        if not watch:
            ended.addTimeout(timeout, reactor)
        await ended
    except DeferredTimeout:
        pass
    finally:
        listener.stopService()
    return found


def _reason(error: CannotListenError) -> str:
    return getattr(error.socketError, "strerror", None) or str(error.socketError)


def format_change(change: InstanceChange, *, watch: bool) -> str:
    """Return a change as a line of JSON; with *watch*, it includes the kind of the change."""
    instance = change.instance
    members: dict[str, object] = {"happened": change.kind.value} if watch else {}
    members |= {
        "name": instance.name,
        "host": instance.host,
        "services": instance.services,
        "version": instance.version,
        "instance": instance.instance,
    }
    return printable_json(msgspec.json.encode(members).decode()) + "\n"
