"""``twisted-net discover``: shows the servers that announce themselves to a group, from a shell."""

# mypy: disallow-untyped-calls=False
# The class of options that this derives from has no types.

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater
from twisted.python.usage import Options, UsageError

from twisted_net.cli.run import INTERRUPTED, run_to_the_end
from twisted_net.discovery.announcements import ChangeKind, InstanceChange
from twisted_net.discovery.service import DiscoveryListener
from twisted_net.discovery.settings import DEFAULT_GROUP, DEFAULT_PORT, DiscoveryGroup

NOBODY = 1
"""Exit status where no server was found."""

UNUSABLE = 2
"""Exit status where the group cannot be used; standard error says why."""


class DiscoverOptions(Options):
    """Where to look for servers, and for how long."""

    synopsis = "Usage: twisted-net discover [options]"
    longdesc = (
        "Prints a line of JSON for each server that is found; status 1 where there is none. "
        "Announcements are not authenticated."
    )
    optFlags: ClassVar[list[list[Any]]] = [  # Any: as usage.Options wants them
        ["watch", "w", "go on until Ctrl-C, and print what is found, changed or lost"],
    ]
    optParameters: ClassVar[list[list[Any]]] = [  # Any: as above
        ["timeout", "t", 3.0, "seconds to wait for servers", float],
        ["group", "g", DEFAULT_GROUP, "multicast or broadcast address"],
        ["port", "p", DEFAULT_PORT, "port of the group", int],
        ["interface", "i", None, "where to look: a name, or an address of IPv4"],
    ]

    def group(self) -> DiscoveryGroup:
        """
        Give the group that the options describe.

        :raises UsageError: for what is none.
        """
        interfaces = (self["interface"],) if self["interface"] else ()
        try:
            return DiscoveryGroup(group=self["group"], port=self["port"], interfaces=interfaces)
        except ValueError as error:
            raise UsageError(str(error).removeprefix("DiscoveryGroup").lstrip(".: ")) from None


def discover(arguments: Sequence[str]) -> None:
    """
    Do what the command line says.

    :raises SystemExit: with 0, with one of the statuses above, or with
        :data:`~twisted_net.cli.run.INTERRUPTED`; a watch ends with 0.
    """
    options = DiscoverOptions()
    try:
        options.parseOptions(list(arguments))
        group = options.group()
    except UsageError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(UNUSABLE) from None

    async def look(reactor: Any) -> None:  # Any: reactors have no one type
        try:
            found = await show(reactor, group, options["timeout"], watch=options["watch"])
        except CancelledError:
            # The way to end it where it watches.
            raise SystemExit(0 if options["watch"] else INTERRUPTED) from None
        except CannotListenError as error:
            sys.stderr.write(f"cannot use {group.group}: {_reason(error)}\n")
            raise SystemExit(UNUSABLE) from None
        if not found:
            raise SystemExit(NOBODY)

    run_to_the_end(look)


async def show(
    reactor: Any,  # Any: reactors have no one type
    group: DiscoveryGroup,
    timeout: float,
    *,
    watch: bool = False,
) -> int:
    """
    Print what is found, and give how many servers that were.

    :param watch: whether to go on until cancelled, and to print what happened too.
    :raises CannotListenError: where the group cannot be joined.
    """
    found = 0

    def changed(change: InstanceChange) -> None:
        nonlocal found
        found += change.kind is ChangeKind.FOUND
        if watch or change.kind is ChangeKind.FOUND:
            sys.stdout.write(line_of(change, watch=watch))
            sys.stdout.flush()

    listener = DiscoveryListener(reactor, reactor, group, changed)
    listener.startService()
    try:
        if watch:
            await Deferred()
        await deferLater(reactor, timeout)
    finally:
        listener.stopService()
    return found


def _reason(error: CannotListenError) -> str:
    return getattr(error.socketError, "strerror", None) or str(error.socketError)


def line_of(change: InstanceChange, *, watch: bool) -> str:
    """Write a change as a line of JSON; *watch* adds what happened."""
    instance = change.instance
    members: dict[str, object] = {"happened": change.kind.value} if watch else {}
    members |= {
        "name": instance.name,
        "host": instance.host,
        "services": instance.services,
        "version": instance.version,
        "instance": instance.instance,
    }
    return msgspec.json.encode(members).decode() + "\n"
