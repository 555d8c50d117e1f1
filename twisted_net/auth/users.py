"""Users, their tokens, and their permissions for commands and topics."""

from __future__ import annotations

import hmac
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Annotated

import msgspec
from attrs import frozen
from msgspec import Meta

from twisted_net.config.record import Record
from twisted_net.errors import AuthRequired, ConfigError, NotPermitted

Patterns = tuple[str, ...]


class AuthSettings(Record, frozen=True):
    """
    Logins of the command server, and what clients may do without one, ``[auth]``.

    If neither ``users`` nor ``checkers`` is set there is no ``AUTH``, all clients may do
    everything, and only clients on this machine are served unless ``open`` is set. Redis calls
    this its protected mode: servers are lost most often by being opened to the network by mistake.

    - ``anonymous``: what a client may do before it has logged in. ``PING`` lets a load balancer
      check that the server is alive.
    - ``timeout``: ten seconds are enough to send a line; set more for people who type it.
    - ``max_line``: no name with a password or token is longer than these 1024 bytes.
    - ``max_anonymous``: connections without a login; above it the oldest of them is closed,
      unless its login is being checked. A tenth of all connections, so that users find room.
    - ``max_waiting``: password checks, which run one at a time; each takes about 0.2 s.
    - ``free_attempts``, ``first_delay``, ``longest_delay``: people mistype three times; after
      that each failure doubles the delay of that source, up to a minute.
    """

    users: Annotated[str, Meta(description="TOML file with the users")] | None = None
    checkers: Annotated[
        Patterns,
        Meta(
            description="twisted.cred checkers, as for --auth of twistd: file:/etc/passwd",
            extra={"secret": True},
        ),
    ] = ()
    open: Annotated[bool, Meta(description="without users, serve other machines too")] = False
    anonymous: Annotated[
        Patterns, Meta(description="commands that a client may use before it has logged in")
    ] = ("PING",)
    timeout: Annotated[
        float, Meta(ge=0, le=86_400, description="seconds in which a client must log in; 0: never")
    ] = 10.0
    max_line: Annotated[
        int, Meta(ge=64, le=65_536, description="longest line before a login, in bytes")
    ] = 1024
    max_anonymous: Annotated[
        int, Meta(ge=1, description="concurrent connections that have not logged in")
    ] = 1000
    max_waiting: Annotated[
        int, Meta(ge=1, le=10_000, description="limit of passwords waiting to be verified")
    ] = 100
    free_attempts: Annotated[
        int,
        Meta(ge=1, le=1000, description="failed logins of a source before delays begin"),
    ] = 3
    first_delay: Annotated[
        float,
        Meta(
            gt=0,
            le=86_400,
            description="first login delay of a source, in seconds; each failure doubles it",
        ),
    ] = 1.0
    longest_delay: Annotated[
        float, Meta(gt=0, le=86_400, description="longest login delay of a source, in seconds")
    ] = 60.0

    @property
    def required(self) -> bool:
        """Whether users are configured, so that clients can log in."""
        return self.users is not None or bool(self.checkers)


class User(Record, frozen=True):
    """
    One user: a table of the users file.

    The last pattern that matches decides; without a match the answer is no. A pattern is a whole
    name or, with ``*`` at its end, a prefix; a leading ``-`` forbids. Among commands ``@admin``
    stands for all administrative ones.

    :raises ValueError: for an invalid pattern.
    """

    password: (
        Annotated[
            str,
            Meta(
                pattern=r"^\$(scrypt|argon2id)\$",
                max_length=512,
                description="hash of the password, made by twisted-net hash-password",
                extra={"secret": True},
            ),
        ]
        | None
    ) = None
    tokens: Annotated[
        tuple[Annotated[str, Meta(pattern="^[0-9a-f]{64}$")], ...],
        Meta(
            description="SHA-256 of tokens, made by twisted-net hash-token",
            extra={"secret": True},
        ),
    ] = ()
    commands: Annotated[Patterns, Meta(description="commands that the user may run")] = (
        "*",
        "-@admin",
    )
    publish: Annotated[Patterns, Meta(description="topics that the user may publish to")] = ("*",)
    subscribe: Annotated[Patterns, Meta(description="topics that the user may subscribe to")] = (
        "*",
    )
    max_connections: (
        Annotated[int, Meta(ge=1, description="connections of this user at once")] | None
    ) = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for pattern in (*self.commands, *self.publish, *self.subscribe):
            if not _PATTERN.fullmatch(pattern):
                raise ValueError(
                    f"{pattern!r} is no pattern: a name; - in front forbids, * at the end extends"
                )


class Permissions:
    """
    The permissions of one user, or of clients that have not logged in.

    :param name: of the user, or None for clients that have not logged in.
    """

    def __init__(self, name: str | None, user: User) -> None:
        self.name = name
        self.max_connections = user.max_connections
        self._commands = tuple(pattern.upper() for pattern in user.commands)
        self._publish = user.publish
        self._subscribe = user.subscribe
        # Keyed by the names of existing commands, which bounds it.
        # Logging in, also as another user, is open to all.
        self._known: dict[str, bool] = {"AUTH": True}

    def check_command(self, name: str, admin: bool, known: bool = True) -> None:
        """
        Check that the user may run a command.

        :param name: in capitals.
        :param known: whether there is such a command, so that the result may be cached.
        :raises NotPermitted: if the user may not.
        :raises AuthRequired: if the client must log in first.
        """
        allowed = self._known.get(name)
        if allowed is None:
            allowed = _allows_command(self._commands, name, admin)
            if known:
                self._known[name] = allowed
        if not allowed:
            raise NotPermitted(name) if self.name is not None else AuthRequired()

    def check_publish(self, topic: str) -> None:
        """
        Check that the user may publish to a topic.

        :raises NotPermitted: if the user may not.
        :raises AuthRequired: if the client must log in first.
        """
        self._check_topic(self._publish, topic)

    def check_subscribe(self, pattern: str) -> None:
        """
        Check that the user may subscribe to a topic or pattern.

        A pattern is allowed if all topics that it could match are. What follows the first of
        ``* > # + ?`` in it is taken to match anything.

        :raises NotPermitted: if the user may not.
        :raises AuthRequired: if the client must log in first.
        """
        self._check_topic(self._subscribe, pattern)

    def _check_topic(self, patterns: Sequence[str], topic: str) -> None:
        if not _allows_topic(patterns, topic):
            raise NotPermitted(topic) if self.name is not None else AuthRequired()


@frozen
class _Token:
    digest: str
    user: str


class Users:
    """
    The users of a server, by name.

    :param users: the records, by name.
    """

    def __init__(self, users: Mapping[str, User]) -> None:
        self._users = dict(users)
        self._permissions = {name: Permissions(name, user) for name, user in users.items()}
        self._tokens = [
            _Token(digest, name) for name, user in users.items() for digest in user.tokens
        ]

    def __len__(self) -> int:
        return len(self._users)

    def items(self) -> Iterable[tuple[str, User]]:
        """Iterate over names and records."""
        return self._users.items()

    @property
    def decoy(self) -> str | None:
        """A password hash to check for an unknown user; None if no user has a password."""
        return next((user.password for user in self._users.values() if user.password), None)

    def get(self, name: str) -> User | None:
        """Return the user of this name, or None."""
        return self._users.get(name)

    def named_by_token(self, token: str) -> str | None:
        """
        Return the name of the user with this token, or None.

        The time does not depend on the token: all are compared, in constant time each.
        """
        digest = hash_token(token)
        found = None
        for known in self._tokens:
            if hmac.compare_digest(known.digest, digest):
                found = known.user
        return found

    def permissions(self, name: str) -> Permissions:
        """
        Return the permissions of a user.

        A user that another checker knows, without a record here, has those of the record
        ``default``; without one, those of a record that sets nothing.
        """
        known = self._permissions.get(name)
        if known is not None:
            return known
        return Permissions(name, self._users.get("default") or User())


def hash_token(token: str) -> str:
    """
    Return the SHA-256 of a token in hexadecimal, as a users file holds it.

    A token is generated from at least 128 random bits, so that it cannot be found by a table of
    hashes or by search: it needs neither a salt nor a slow hash.
    """
    return sha256(token.encode()).hexdigest()


def read_users(text: str, file: str) -> Users:
    """
    Parse a users file: TOML, a table for each user.

    :param file: its name, for error messages, which never repeat a value.
    :raises ConfigError: with a line for each mistake.
    """
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError):
        # Its message may repeat what stands there, which may be a secret.
        raise ConfigError([f"{file}: this is not TOML"]) from None
    users: dict[str, User] = {}
    mistakes = []
    for name, table in tables.items():
        if not _NAME.fullmatch(name):
            mistakes.append(f"{file}: {name!r} is no name for a user: letters, digits and . _ @ -")
            continue
        try:
            users[name] = msgspec.convert(table, User)
        except msgspec.ValidationError as error:
            mistakes.append(f"{file}: user {name}: {error}")
    if not users and not mistakes:
        mistakes.append(f"{file}: there is no user in it")
    if mistakes:
        raise ConfigError(mistakes)
    return Users(users)


_NAME = re.compile(r"[\w.@-]{1,128}")
_PATTERN = re.compile(r"-?[^\s*-][^\s*]*\*?|-?\*")
_WILDCARD = re.compile(r"[*>#+?]")


def _allows_command(patterns: Sequence[str], name: str, admin: bool) -> bool:
    allowed = False
    for pattern in patterns:
        rule = pattern.removeprefix("-")
        if admin if rule == "@ADMIN" else _covers(rule, name):
            allowed = rule == pattern
    return allowed


def _allows_topic(patterns: Sequence[str], topic: str) -> bool:
    """Whether all topics that *topic* could match are allowed; its literal prefix decides."""
    match = _WILDCARD.search(topic)
    prefix = topic if match is None else topic[: match.start()]
    allowed = False
    for pattern in patterns:
        rule = pattern.removeprefix("-")
        if rule == pattern:
            # To allow, the rule must cover all of it; an exact rule covers no wildcard.
            if _covers(rule, prefix) and (match is None or rule.endswith("*")):
                allowed = True
        # To forbid, it is enough that one topic may be covered.
        elif _covers(rule, prefix) or (match is not None and rule.startswith(prefix)):
            allowed = False
    return allowed


def _covers(rule: str, name: str) -> bool:
    return name.startswith(rule[:-1]) if rule.endswith("*") else name == rule
