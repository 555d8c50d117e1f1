"""Why connections end and commands are refused, and what the audit needs to know of a client."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Protocol, TypeAlias


class End(Enum):
    """Why a connection ended; the values are shown by STATS, CLOSED and the log."""

    CLIENT_CLOSED = "client_closed"
    CONNECTION_LOST = "connection_lost"
    IDLE_TIMEOUT = "idle_timeout"
    WRITE_TIMEOUT = "write_timeout"
    SLOW_SUBSCRIBER = "slow_subscriber"
    DRAINED = "drained"
    ABORTED = "aborted"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    HANDSHAKE_TIMEOUT = "handshake_timeout"
    HANDSHAKE_FAILED = "handshake_failed"
    TOO_MANY_HANDSHAKES = "too_many_handshakes"
    UNTRUSTED_PROXY = "untrusted_proxy"
    ADDRESS_LIMIT = "address_limit"
    NETWORK_LIMIT = "network_limit"
    USER_LIMIT = "user_limit"
    ANONYMOUS_LIMIT = "anonymous_limit"
    PROTECTED = "protected"
    AUTH_TIMEOUT = "auth_timeout"
    CROSS_PROTOCOL = "cross_protocol"
    BUFFERS_FULL = "buffers_full"
    TOO_MANY_KEY_UPDATES = "too_many_key_updates"
    NO_DESCRIPTORS = "no_descriptors"
    KILLED = "killed"
    REFUSED = "refused"
    BANNED = "banned"


class Refusal(Enum):
    """Why a command was not run; the values are the ``code`` of the answer."""

    AUTH_REQUIRED = "auth_required"
    AUTH_FAILED = "auth_failed"
    AUTH_DELAYED = "auth_delayed"
    NOT_PERMITTED = "not_permitted"
    RATE_LIMITED = "rate_limited"
    LINE_TOO_LONG = "line_too_long"
    SUBSCRIPTION_LIMIT = "subscription_limit"
    BUSY = "busy"


class Audited(Protocol):
    """The client that a line of the audit is about."""

    @property
    def name(self) -> str:
        """Its address, as ``host:port``."""
        ...

    @property
    def user(self) -> str | None:
        """The user as which it has logged in, or None."""
        ...


class Caller:
    """
    A client as it was when it came or sent a command; it may have another user, or be gone, by now.

    :ivar user: None if it had not logged in.
    """

    # No attrs class: one is made for each command that waits.
    __slots__ = ("name", "user")

    def __init__(self, name: str, user: str | None = None) -> None:
        self.name = name
        self.user = user


AuditLog: TypeAlias = Callable[[str, Audited, str], None]
"""Takes a line of the audit: what happened, the client it is about, and more in words."""
