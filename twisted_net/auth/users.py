"""Users, their tokens, and their permissions for commands and topics."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Literal, Protocol
from weakref import WeakValueDictionary

import msgspec
from msgspec import Meta

from twisted_net.auth.passwords import settings_of
from twisted_net.config.record import Record
from twisted_net.config.type_checks import check_arguments
from twisted_net.errors import AuthRequired, CommandError, ConfigError, NotPermitted
from twisted_net.topics.settings import BROADCAST

Patterns = tuple[str, ...]

DEFAULT = "default"
"""
The record of a users file for those who are not listed in it; it is no user itself.

See :attr:`AuthSettings.unlisted`.
"""

DECOY = "$scrypt$ln=15,r=8,p=3$MDAwMDAwMDAwMDAwMDAwMA$yXEwQhQlQqk5vRfijBEsILiVw39bwFM7s+citMRbpAc"
"""Hash to verify where no user has a password, so that the time does not show it."""

MAX_HASH_SETTINGS = 4
"""
Kinds and costs that the hashes of the passwords of all users may have. A login is refused after one
verification of each, so that its time does not show whose password was tried.
"""


class AuthSettings(Record, frozen=True):
    """
    Logins of the command server, and what clients may do without one, ``[auth]``.

    If neither ``users`` nor ``checkers`` is set there is no ``AUTH``, all clients may do
    everything, and only clients on this machine are served unless ``open`` is set. Redis calls
    this its protected mode: servers are lost most often by being opened to the network by mistake.

    - ``unlisted``: a login that one of ``checkers`` accepts is refused if ``users`` does not list
      the name; with ``default`` it has the permissions of the record ``default`` in ``users``. The
      names of client certificates must be listed in any case.
    - ``refresh_interval``: a user that was removed from the file, or may do less, loses it on open
      connections within this time.
    - ``anonymous``: what a client may do before it has logged in. ``PING`` lets a load balancer
      check that the server is alive.
    - ``anonymous_publish``, ``anonymous_subscribe``: the same for topics, and for those of CoAP. No
      one receives broadcasts without a login.
    - ``timeout``: ten seconds are enough to send a line; set more for people who type it.
    - ``max_line``: no name with a password or token is longer than these 1024 bytes.
    - ``max_anonymous``: connections without a login; above it the oldest of them is closed,
      unless its login is being checked. A tenth of all connections, so that users find room.
    - ``password_threads``: each check takes about 0.2 s of processor time; two at a time would
      leave the server none of two processors.
    - ``max_waiting``: passwords that wait for their check; fewer, if so many cannot be checked
      within ``timeout``.
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
    unlisted: Annotated[
        Literal["refuse", "default"],
        Meta(description="what to do with names that a checker accepts and users does not list"),
    ] = "refuse"
    refresh_interval: Annotated[
        float,
        Meta(ge=0.1, le=3600, description="seconds between two looks whether users has changed"),
    ] = 1.0
    open: Annotated[bool, Meta(description="without users, serve other machines too")] = False
    anonymous: Annotated[
        Patterns, Meta(description="commands that a client may use before it has logged in")
    ] = ("PING",)
    anonymous_publish: Annotated[
        Patterns, Meta(description="topics that a client may publish to before it has logged in")
    ] = ()
    anonymous_subscribe: Annotated[
        Patterns, Meta(description="topics that a client may subscribe to before a login")
    ] = ()
    timeout: Annotated[
        float, Meta(ge=0, le=86_400, description="seconds in which a client must log in; 0: never")
    ] = 10.0
    max_line: Annotated[
        int, Meta(ge=64, le=65_536, description="longest line before a login, in bytes")
    ] = 1024
    max_anonymous: Annotated[
        int, Meta(ge=1, description="concurrent connections that have not logged in")
    ] = 1000
    password_threads: Annotated[
        int, Meta(ge=1, le=64, description="passwords verified at a time, each in a thread")
    ] = 1
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


class PermissionsHolder(Protocol):
    """What holds the permissions of a user: a session; hashable by identity."""

    @property
    def subscriptions(self) -> int:
        """How many subscriptions it has, which the time of a review depends on."""
        ...

    def review(self) -> None:
        """End what the permissions, which have changed, no longer allow."""
        ...


@check_arguments
class Permissions:
    """
    The permissions of one user, or of clients that have not logged in.

    All sessions of a user hold the same object. :meth:`change` and :meth:`withdraw` therefore take
    effect at once for all that is checked from then on; what was begun before, such as a
    subscription, goes on until its holder's :meth:`~PermissionsHolder.review`.

    :param name: of the user, or None for clients that have not logged in.
    :ivar withdrawn: whether the user has been removed, so that nothing but AUTH is permitted.
    :ivar hears_broadcasts: whether it may receive what BROADCAST sends. Kept, since it is looked at
        for each client of each broadcast.
    :ivar holders: who holds it, oldest first; they add and remove themselves.
    """

    def __init__(self, name: str | None, user: User) -> None:
        self.name = name
        self.withdrawn = False
        self.holders: dict[PermissionsHolder, None] = {}
        self.change(user)

    def change(self, user: User) -> None:
        """Replace all that the user may do."""
        self.max_connections = user.max_connections
        self._commands = tuple(pattern.upper() for pattern in user.commands)
        self._publish = user.publish
        self._subscribe = user.subscribe
        self._proofs = frozenset((user.password, *user.tokens))
        # Whatever is allowed to clients that have not logged in, they get nothing unasked.
        self.hears_broadcasts = self.name is not None and _allows_topic(user.subscribe, BROADCAST)
        # Keyed by the names of existing commands, which bounds it.
        # Logging in, also as another user, is open to all.
        self._known: dict[str, bool] = {"AUTH": True}

    def copy_from(self, other: Permissions) -> None:
        """Permit what another object does; it takes a tenth of what :meth:`change` takes."""
        self.max_connections = other.max_connections
        self._commands = other._commands
        self._publish = other._publish
        self._subscribe = other._subscribe
        self._proofs = other._proofs
        self.hears_broadcasts = other.hears_broadcasts
        self._known = {"AUTH": True}

    def withdraw(self) -> None:
        """Permit nothing but AUTH from now on: there is no such user any more."""
        self.withdrawn = True
        self.copy_from(NOBODY)

    def accepts(self, proof: str | None) -> bool:
        """
        Whether a client that has logged in with this proof is still the user.

        :param proof: the hash of the password or of the token; None if the users file has none of
            it, as with a certificate.
        """
        return not self.withdrawn and (proof is None or proof in self._proofs)

    def check_command(self, name: str, admin: bool, known: bool = True) -> None:
        """
        Check that the user may run a command.

        :param name: in capitals.
        :param known: whether there is such a command. One that there is not is permitted if it
            would be both as an administrative command and as another, so that the answer is the
            same as for a command that is not permitted.
        :raises NotPermitted: if the user may not.
        :raises AuthRequired: if the client must log in first.
        """
        if self._known.get(name):
            return
        # Both in each case, also if the result is known: the time says not which commands exist.
        allowed = _allows_command(self._commands, name, admin)
        allowed_otherwise = _allows_command(self._commands, name, not admin)
        if known:
            self._known[name] = allowed
        elif not allowed_otherwise:
            allowed = False
        if not allowed:
            raise self._refusal(name)

    def check_fallback(self, word: str) -> None:
        """
        Check that the user may send a line that is no command, where a fallback answers these.

        :param word: its first word, in capitals.
        :raises NotPermitted, AuthRequired: as :meth:`check_command`.
        """
        if not _allows_command(self._commands, word, admin=False):
            raise self._refusal(word)

    def allows_command(self, name: str, admin: bool) -> bool:
        """Whether the user may run a command, which exists; *name* in capitals."""
        allowed = self._known.get(name)
        if allowed is None:
            allowed = self._known[name] = _allows_command(self._commands, name, admin)
        return allowed

    def check_publish(self, topic: str) -> None:
        """
        Check that the user may publish to a topic.

        :raises NotPermitted: if the user may not.
        :raises AuthRequired: if the client must log in first.
        """
        if not _allows_topic(self._publish, topic):
            raise self._refusal(topic)

    def check_subscribe(self, pattern: str) -> None:
        """
        Check that the user may subscribe to a topic or pattern.

        A pattern is allowed if all topics that it could match are. What follows the first of
        ``* > # + ?`` in it is taken to match anything.

        :raises NotPermitted: if the user may not.
        :raises AuthRequired: if the client must log in first.
        """
        if not self.allows_subscribe(pattern):
            raise self._refusal(pattern)

    def check_broadcasts(self) -> None:
        """
        Check that the user may receive what BROADCAST sends.

        :raises NotPermitted: if the user may not subscribe to its topic.
        :raises AuthRequired: if the client must log in first.
        """
        if not self.hears_broadcasts:
            raise self._refusal(BROADCAST)

    def allows_subscribe(self, pattern: str) -> bool:
        """Whether :meth:`check_subscribe` accepts a topic or pattern."""
        return _allows_topic(self._subscribe, pattern)

    def _refusal(self, what: str) -> CommandError:
        if self.name is None or self.withdrawn:
            return AuthRequired()
        return NotPermitted(what)


_NOTHING = User(commands=(), publish=(), subscribe=())


@check_arguments
class Users:
    """
    The users of a server, by name.

    :param users: the records, by name; that of :data:`DEFAULT` is no user.
    """

    def __init__(self, users: Mapping[str, User]) -> None:
        self._users = dict(users)
        self._permissions = {
            name: Permissions(name, user) for name, user in users.items() if name != DEFAULT
        }
        self._compared: tuple[Users, list[_Difference]] | None = None
        # As long as somebody holds them: how many names a checker accepts is not known.
        self._unlisted: WeakValueDictionary[str, Permissions] = WeakValueDictionary()
        hashes = [user.password for user in users.values() if user.password is not None]
        self._decoys = tuple({settings_of(found): found for found in hashes or [DECOY]}.values())
        self._named_by_digest = {
            digest: name for name, user in users.items() for digest in user.tokens
        }

    def __len__(self) -> int:
        return len(self._users)

    def items(self) -> Iterable[tuple[str, User]]:
        """Iterate over names and records."""
        return self._users.items()

    @property
    def decoys(self) -> Sequence[str]:
        """A hash of each kind and cost that passwords have; :data:`DECOY` if no user has one."""
        return self._decoys

    def get(self, name: str) -> User | None:
        """Return the user of this name, or None."""
        return self._users.get(name)

    def named_by_token(self, token: str) -> str | None:
        """
        Return the name of the user with this token, or None.

        What the time tells of the digests that there are is of no use: nobody finds a token whose
        digest begins as one of them does. To compare it with each would take the reactor, for one
        wrong token, 26 ms for a hundred thousand.
        """
        return self._named_by_digest.get(hash_token(token))

    def permissions(self, name: str) -> Permissions | None:
        """Return the permissions of a user; None if there is no user of exactly this name."""
        return self._permissions.get(name)

    def unlisted(self, name: str) -> Permissions:
        """
        Return the permissions of a user whom another checker knows, and who may not be listed here.

        Without a record here, they are those of the record :data:`DEFAULT`; without one, those of
        a record that sets nothing.
        """
        known = self._permissions.get(name) or self._unlisted.get(name)
        if known is None:
            known = self._unlisted[name] = Permissions(name, self._users.get(DEFAULT) or User())
        return known

    def compare(self, before: Users) -> None:
        """
        Find what :meth:`replace` has to change, ahead of it: these are not used before.

        It takes a while where users are many, and changes nothing of *before*: it may run in
        another thread.
        """
        differences: list[_Difference] = []
        for name, permissions in before._permissions.items():
            new = self._permissions.get(name)
            if new is None:
                differences.append((permissions, None))
                continue
            self._permissions[name] = permissions
            if self._users[name] != before._users[name]:
                differences.append((permissions, new))
        self._compared = before, differences

    def replace(self, before: Users) -> list[Permissions]:
        """
        Take over the permissions that clients hold, and change them as these records say.

        :param before: the users that these replace; they may have been compared before.
        :return: those that have changed, or were withdrawn; their holders are to review them.
        """
        if self._compared is None or self._compared[0] is not before:
            self.compare(before)
        assert self._compared is not None
        (_, differences), self._compared = self._compared, None
        changed = []
        for permissions, new in differences:
            if new is None:
                permissions.withdraw()
            else:
                permissions.copy_from(new)
            changed.append(permissions)
        default = self._users.get(DEFAULT) or User()
        same_default = default == (before._users.get(DEFAULT) or User())
        for name, permissions in list(before._unlisted.items()):
            if name in self._permissions:
                self._permissions[name] = permissions
                permissions.change(self._users[name])
            else:
                self._unlisted[name] = permissions
                if same_default:
                    continue
                permissions.change(default)
            changed.append(permissions)
        return changed


_Difference = tuple[Permissions, Permissions | None]
"""Permissions that are held, and those that are to replace them; None if there is no such user."""


@check_arguments
def hash_token(token: str) -> str:
    """
    Return the SHA-256 of a token in hexadecimal, as a users file holds it.

    A token is generated from at least 128 random bits, so that it cannot be found by a table of
    hashes or by search: it needs neither a salt nor a slow hash.
    """
    return sha256(token.encode()).hexdigest()


@check_arguments
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
            shown = name[:_MAX_NAME]
            mistakes.append(
                f"{file}: {shown!r} is no name for a user: letters, digits and . _ @ -, "
                f"{_MAX_NAME} at most"
            )
            continue
        try:
            users[name] = msgspec.convert(table, User)
        except msgspec.ValidationError as error:
            mistakes.append(f"{file}: user {name}: {error}")
            continue
        if name == DEFAULT and (users[name].password or users[name].tokens):
            mistakes.append(f"{file}: {DEFAULT} is no user, and has neither a password nor tokens")
    owners: dict[str, str] = {}
    for name, user in users.items():
        for digest in user.tokens:
            owner = owners.setdefault(digest, name)
            if owner != name:
                mistakes.append(f"{file}: user {name}: a token is also that of {owner}")
    settings = {settings_of(user.password) for user in users.values() if user.password is not None}
    if len(settings) > MAX_HASH_SETTINGS:
        mistakes.append(
            f"{file}: the hashes of passwords have {len(settings)} different kinds or costs: hash "
            f"some anew, so that they have at most {MAX_HASH_SETTINGS}"
        )
    if not users and not mistakes:
        mistakes.append(f"{file}: there is no user in it")
    if mistakes:
        raise ConfigError(mistakes)
    return Users(users)


_MAX_NAME = 128
_NAME = re.compile(rf"[\w.@-]{{1,{_MAX_NAME}}}")
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
        # To forbid, it is enough that one topic may be covered; no wildcard covers BROADCAST's.
        elif _covers(rule, prefix) or (
            match is not None and rule.startswith(prefix) and rule != BROADCAST
        ):
            allowed = False
    return allowed


def _covers(rule: str, name: str) -> bool:
    return name.startswith(rule[:-1]) if rule.endswith("*") else name == rule


NOBODY = Permissions(None, _NOTHING)
"""Permissions of a client that has proved to be somebody who is no user: nothing but AUTH."""
