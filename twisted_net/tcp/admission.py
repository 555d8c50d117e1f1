"""Who may come in, how much each source may ask for, and who goes first where memory runs out."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from attrs import frozen

from twisted_net.auth.users import AuthSettings, Permissions, User
from twisted_net.errors import CommandError, Protected, RateLimited, TooManyConnections
from twisted_net.net.addresses import is_local, network_of
from twisted_net.net.rate_limit import KeyedCounts, RateLimiter
from twisted_net.reasons import End
from twisted_net.tcp.limits import Limits

RELIEF = 0.9
"""
What share of the buffers is left once the fattest connections have gone: to sort them costs a
millisecond or more, so that each time room is made for a while.
"""

FOREIGN = re.compile(rb"[A-Z]{3,16} [^ ]+ HTTP/[0-9]|(?i:host):")
"""
The first line of an HTTP request, or the header that another site's page cannot leave out. A web
page may make a browser send any lines to this port, in the body of such a request.
"""

_C = TypeVar("_C", bound=Hashable)


class Access:
    """
    What clients may do before and after they log in.

    :param settings: whether there are users, and the limits before a login.
    :param permissions_of: gives what the user of this name may do.
    :param admin_elsewhere: whether administrative commands have a listener of their own; else
        this machine's own clients may use them where there are no users.
    :ivar required: whether clients must log in at all.
    :ivar anonymous: what they may do before; AUTH always is.
    """

    def __init__(
        self,
        settings: AuthSettings,
        permissions_of: Callable[[str], Permissions],
        admin_elsewhere: bool = False,
    ) -> None:
        self.settings = settings
        self.permissions_of = permissions_of
        self.required = settings.required
        self._admin_elsewhere = admin_elsewhere
        self.anonymous = Permissions(
            None, User(commands=settings.anonymous, publish=(), subscribe=())
        )

    def administers(self, host: str) -> bool:
        """Whether a client at this address may administer, where there are no users."""
        return is_local(host) and not self._admin_elsewhere


@frozen
class Turned:
    """Why a connection is turned away, for the count and for the client."""

    end: End
    error: CommandError


class Admission(Generic[_C]):
    """
    The connections of one server by address, network and user, against their limits.

    :param limits: those of the server.
    :param access: who may do what; None where everybody may, from anywhere.
    """

    def __init__(self, limits: Limits, access: Access | None = None) -> None:
        self._limits = limits
        self._access = access
        self._protected = access is not None and not access.required and not access.settings.open
        self._addresses = KeyedCounts()
        self._networks = KeyedCounts()
        self._users = KeyedCounts()
        # Until when each that has not logged in must have; in the order in which they came.
        self._anonymous: dict[_C, float] = {}
        self._commands = _rates(_commands_per_second(limits), limits.command_burst)
        self._bytes = _rates(_bytes_per_second(limits), limits.byte_burst)

    def refusal(self, host: str) -> Turned | None:
        """Say why a client at this address may not come in; None where it may."""
        limits = self._limits
        if self._protected and not is_local(host):
            return Turned(End.PROTECTED, Protected())
        most = limits.connections_per_address
        if most is not None and self._addresses[host] >= most:
            return Turned(End.ADDRESS_LIMIT, TooManyConnections(most, "address"))
        most = limits.connections_per_network
        if most is not None and self._networks[network_of(host)] >= most:
            return Turned(End.NETWORK_LIMIT, TooManyConnections(most, "network"))
        return None

    def enter(self, connection: _C, host: str, now: float) -> None:
        """Take a client in; where logins are required it has some time to log in."""
        self._addresses.add(host)
        self._networks.add(network_of(host))
        if self._access is not None and self._access.required:
            timeout = self._access.settings.timeout
            self._anonymous[connection] = now + timeout if timeout else float("inf")

    def leave(self, connection: _C, host: str, user: str | None) -> None:
        """Let a client go."""
        self._addresses.remove(host)
        self._networks.remove(network_of(host))
        self._anonymous.pop(connection, None)
        if user is not None:
            self._users.remove(user)

    def log_in(self, connection: _C, before: str | None, permissions: Permissions) -> None:
        """
        Count a client for the user that it becomes.

        :param before: the user that it was.
        :raises TooManyConnections: where this user has as many connections as it may.
        """
        user = permissions.name
        assert user is not None
        most = permissions.max_connections or self._limits.connections_per_user
        if most is not None and user != before and self._users[user] >= most:
            raise TooManyConnections(most, "user")
        self._users.add(user)
        if before is not None:
            self._users.remove(before)
        self._anonymous.pop(connection, None)

    def administers(self, host: str) -> bool:
        """Whether a client at this address may administer, where its permissions do not say."""
        return self._access is None or self._access.administers(host)

    def crowded_out(self, logging_in: Callable[[_C], bool]) -> _C | None:
        """
        Take out who must go since too many have not logged in: the one that came first.

        A crowd that never logs in then keeps out only those who need longer for it than the crowd
        to come anew; to refuse whoever comes would keep out all.

        :param logging_in: whether a client waits for its login, and so may stay; few do.
        """
        access = self._access
        if access is None or len(self._anonymous) <= access.settings.max_anonymous:
            return None
        first = next((one for one in self._anonymous if not logging_in(one)), None)
        if first is not None:
            del self._anonymous[first]
        return first

    def late(self, now: float) -> list[_C]:
        """Give the clients that have not logged in and have no time left; each once."""
        late = []
        # The time is the same for all, so that the first that has some left ends the search.
        for connection, deadline in self._anonymous.items():
            if deadline > now:
                break
            late.append(connection)
        for connection in late:
            self._anonymous[connection] = float("inf")
        return late

    def meter(self, host: str, user: str | None) -> Meter | None:
        """Give what counts the commands and bytes of a client; None where nothing is limited."""
        keys = {"server": "", "address": host, "network": network_of(host), "user": user}
        commands = _with_keys(self._commands, keys)
        transferred = _with_keys(self._bytes, keys)
        return Meter(commands, transferred) if commands or transferred else None


_Metered = list[tuple[str, RateLimiter, str]]


class Meter:
    """
    KeyedCounts what one client asks for, against all the rates that it is under.

    :param commands: for each of them its scope, the rates, and the key of this client.
    :param transferred: the same for bytes.
    """

    __slots__ = ("_commands", "_transferred")

    def __init__(self, commands: _Metered, transferred: _Metered) -> None:
        self._commands = commands
        self._transferred = transferred

    def take_command(self, now: float) -> RateLimited | None:
        """Count a command against all rates, or against none and say which one is exhausted."""
        for scope, rates, key in self._commands:
            wait = rates.wait(key, now)
            if wait > 0:
                return RateLimited(scope, wait)
        for _, rates, key in self._commands:
            rates.charge(key, now)
        return None

    def charge(self, size: int, now: float) -> float:
        """Count bytes that came or went; return the seconds in which no more should."""
        longest = 0.0
        for _, rates, key in self._transferred:
            rates.charge(key, now, size)
            longest = max(longest, rates.wait(key, now, 0))
        return longest


class Buffers(Generic[_C]):
    """
    What all connections of a server hold in memory, in bytes, by connection.

    :param limit: for all of them together.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: dict[_C, int] = {}
        self.total = 0

    def set(self, connection: _C, size: int) -> bool:
        """Note what a connection holds now; say whether all together hold too much."""
        self.total += size - self._held.pop(connection, 0)
        if size:
            self._held[connection] = size
        return self.total > self._limit

    def fattest(self) -> list[_C]:
        """Take out the connections that must go, those that hold most first."""
        gone = []
        for connection in sorted(self._held, key=self._held.__getitem__, reverse=True):
            if self.total <= self._limit * RELIEF:
                break
            self.total -= self._held.pop(connection)
            gone.append(connection)
        return gone


def _commands_per_second(limits: Limits) -> dict[str, float | None]:
    return {
        "server": limits.commands_per_listener,
        "address": limits.commands_per_address,
        "network": limits.commands_per_network,
        "user": limits.commands_per_user,
    }


def _bytes_per_second(limits: Limits) -> dict[str, float | None]:
    return {
        "server": limits.bytes_per_listener,
        "address": limits.bytes_per_address,
        "network": limits.bytes_per_network,
        "user": limits.bytes_per_user,
    }


def _rates(per_second: dict[str, float | None], burst: float) -> list[tuple[str, RateLimiter]]:
    return [
        (scope, RateLimiter(rate, burst)) for scope, rate in per_second.items() if rate is not None
    ]


def _with_keys(rates: list[tuple[str, RateLimiter]], keys: dict[str, str | None]) -> _Metered:
    found = []
    for scope, table in rates:
        key = keys[scope]
        if key is not None:
            found.append((scope, table, key))
    return found
