"""Admission: counts connections by source and user, and rates of each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

from attrs import frozen

from twisted_net.auth.users import AuthSettings, Permissions, User
from twisted_net.config.type_checks import check_arguments
from twisted_net.errors import CommandError, Protected, RateLimited, TooManyConnections
from twisted_net.net.addresses import client_prefix, is_local, network_of
from twisted_net.net.rate_limit import KeyedCounts, RateLimiter
from twisted_net.reasons import End
from twisted_net.tcp.limits import Limits

_C = TypeVar("_C", bound=Hashable)


@check_arguments
class Access:
    """
    What clients may do before and after they log in.

    :param settings: whether there are users, and the limits before a login.
    :param permissions_of: returns the permissions of the user with this name, which a client's
        certificate proves; None if there is no such user.
    :param admin_elsewhere: whether administrative commands have a listener of their own; if not,
        and if there are no users, clients on this machine may use them.
    :ivar required: whether clients must log in.
    :ivar anonymous: permissions before the login; AUTH is always permitted.
    """

    def __init__(
        self,
        settings: AuthSettings,
        permissions_of: Callable[[str], Permissions | None],
        admin_elsewhere: bool = False,
    ) -> None:
        self.settings = settings
        self.permissions_of = permissions_of
        self.required = settings.required
        self._admin_elsewhere = admin_elsewhere
        self.anonymous = Permissions(
            None,
            User(
                commands=settings.anonymous,
                publish=settings.anonymous_publish,
                subscribe=settings.anonymous_subscribe,
            ),
        )

    def administers(self, host: str) -> bool:
        """Whether a client at this address may administer if there are no users."""
        return is_local(host) and not self._admin_elsewhere


@frozen
class Rejection:
    """Why a connection is rejected: the reason to count, and the error for the client."""

    end: End
    error: CommandError


class Admission(Generic[_C]):
    """
    Counts the connections of one server by address, network and user, against their limits.

    An address is what a client cannot choose of it: all of an IPv4 address, the /64 of IPv6.

    :param limits: those of the server.
    :param access: who may log in; None if everybody may do everything, from anywhere.
    """

    def __init__(self, limits: Limits, access: Access | None = None) -> None:
        self._limits = limits
        self._access = access
        self._protected = access is not None and not access.required and not access.settings.open
        self._addresses = KeyedCounts()
        self._networks = KeyedCounts()
        self._users = KeyedCounts()
        # Those that have not logged in, oldest first. Not a bounded table: the one that is evicted
        # is not always the oldest.
        self._anonymous: OrderedDict[_C, None] = OrderedDict()
        # By when they must have, the earliest first: the time limit is the same for all.
        self._deadlines: OrderedDict[_C, float] = OrderedDict()
        self._commands = _rates(_commands_per_second(limits), limits.command_burst)
        self._bytes = _rates(_bytes_per_second(limits), limits.byte_burst)

    def rejection(self, host: str) -> Rejection | None:
        """Return why a client at this address is rejected; None if it is accepted."""
        limits = self._limits
        if self._protected and not is_local(host):
            return Rejection(End.PROTECTED, Protected())
        limit = limits.connections_per_address
        if limit is not None and self._addresses[client_prefix(host)] >= limit:
            return Rejection(End.ADDRESS_LIMIT, TooManyConnections(limit, "address"))
        limit = limits.connections_per_network
        if limit is not None and self._networks[network_of(host)] >= limit:
            return Rejection(End.NETWORK_LIMIT, TooManyConnections(limit, "network"))
        return None

    def enter(self, connection: _C, host: str, now: float) -> None:
        """Count a connection; if logins are required its time to log in begins."""
        self._addresses.add(client_prefix(host))
        self._networks.add(network_of(host))
        if self._access is not None and self._access.required:
            self.expect_login(connection, now)

    def expect_login(self, connection: _C, now: float) -> None:
        """Count a connection as one that has not logged in; its time to do so begins."""
        assert self._access is not None
        timeout = self._access.settings.timeout
        self._anonymous[connection] = None
        if timeout:
            self._deadlines[connection] = now + timeout

    def leave(self, connection: _C, host: str, user: str | None) -> None:
        """Count a connection that is lost."""
        self._addresses.remove(client_prefix(host))
        self._networks.remove(network_of(host))
        self._expect_no_login(connection)
        if user is not None:
            self._users.remove(user)

    def log_in(self, connection: _C, before: str | None, permissions: Permissions) -> None:
        """
        Count a connection for the user that its client logs in as.

        :param before: the user that it was logged in as.
        :raises TooManyConnections: if this user has as many connections as it may.
        """
        user = permissions.name
        assert user is not None
        limit = permissions.max_connections or self._limits.connections_per_user
        if limit is not None and user != before and self._users[user] >= limit:
            raise TooManyConnections(limit, "user")
        self._users.add(user)
        if before is not None:
            self._users.remove(before)
        self._expect_no_login(connection)

    def release(self, user: str) -> None:
        """Count a connection no longer for a user, as it was logged out."""
        self._users.remove(user)

    def exceeds(self, permissions: Permissions) -> bool:
        """Whether a user has more connections than it may, as its limit was lowered."""
        limit = permissions.max_connections or self._limits.connections_per_user
        return limit is not None and self._users[permissions.name or ""] > limit

    def administers(self, host: str) -> bool:
        """Whether a client at this address may administer, if its permissions do not say."""
        return self._access is None or self._access.administers(host)

    def evict_anonymous(self, logging_in: Callable[[_C], bool]) -> _C | None:
        """
        Remove the oldest connection without a login, if there are too many of them.

        Clients that never log in, however many, then keep out only those that need longer to log in
        than as many new connections take to arrive; rejecting new ones would keep out all.

        :param logging_in: returns whether a connection waits for its login, and may stay; few do.
        :return: the connection to abort, or None.
        """
        access = self._access
        if access is None or len(self._anonymous) <= access.settings.max_anonymous:
            return None
        first = next((one for one in self._anonymous if not logging_in(one)), None)
        if first is not None:
            self._expect_no_login(first)
        return first

    def take_overdue(self, now: float) -> Iterator[_C]:
        """
        Iterate over the connections whose time to log in is over; each is yielded once.

        One that logs in or leaves while the iterator waits is not.
        """
        while self._deadlines:
            connection, deadline = next(iter(self._deadlines.items()))
            if deadline > now:
                break
            # It stays among the anonymous until it leaves: its peer may take a while to read why.
            del self._deadlines[connection]
            yield connection

    def _expect_no_login(self, connection: _C) -> None:
        self._anonymous.pop(connection, None)
        self._deadlines.pop(connection, None)

    def meter(self, host: str, user: str | None) -> Meter | None:
        """Return what counts the commands and bytes of a client; None if no rate is limited."""
        address, network = client_prefix(host), network_of(host)
        keys = {"server": "", "address": address, "network": network, "user": user}
        commands = _with_keys(self._commands, keys)
        transferred = _with_keys(self._bytes, keys)
        return Meter(commands, transferred) if commands or transferred else None


_Metered = list[tuple[str, RateLimiter, str]]


class Meter:
    """
    Counts the commands and bytes of one client against all the rates that hold for it.

    :param commands: for each rate its scope, its limiter, and the key of this client there.
    :param transferred: the same for bytes.
    """

    __slots__ = ("_commands", "_transferred")

    def __init__(self, commands: _Metered, transferred: _Metered) -> None:
        self._commands = commands
        self._transferred = transferred

    def take_command(self, now: float) -> RateLimited | None:
        """Count a command against all rates; or against none, and return which one is used up."""
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
