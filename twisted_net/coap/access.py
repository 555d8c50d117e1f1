"""What a CoAP client may do: as the user whom its certificate names, or as a stranger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from twisted_net.auth.users import Permissions
from twisted_net.commands.registry import Command
from twisted_net.dtls.peer import identity_of
from twisted_net.errors import AuthRequired, NotPermitted
from twisted_net.net.addresses import Source
from twisted_net.reasons import Refusal
from twisted_net.sessions import Session

PermissionsOf: TypeAlias = Callable[[str | None], Permissions]
"""Gives what a user may do; and, for None, what one may who is no user."""


def enter(session: Session, source: Source, permissions_of: PermissionsOf | None) -> None:
    """Let a session be that of the user whom its peer's certificate names, if one does."""
    session.identity = identity_of(source)
    if permissions_of is not None:
        session.permissions = permissions_of(session.identity)
        if session.identity is not None:
            session.sessions.audit("login", session, "by certificate")


def check_user(session: Session) -> None:
    """
    Refuse a stranger, where there are users.

    :raises AuthRequired: for one.
    """
    if session.permissions is not None and session.user is None:
        raise AuthRequired


def check_command(session: Session, command: Command, words: Sequence[str]) -> None:
    """
    Refuse a command that the peer's user may not use, and tell the auditor.

    :raises AuthRequired, NotPermitted: with the reason.
    """
    if session.permissions is None:
        return
    try:
        session.permissions.check_command(command.name, command.admin)
    except (AuthRequired, NotPermitted) as error:
        session.sessions.refuse_line(session, Refusal(error.code), command.name)
        raise
    if command.admin:
        session.sessions.audit("command", session, " ".join((command.name, *words)))
