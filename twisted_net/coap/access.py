"""Access of CoAP peers: with the permissions of their certificate's user, or as anonymous."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from twisted_net.auth.users import Permissions
from twisted_net.dtls.peer import identity_of
from twisted_net.errors import AuthRequired
from twisted_net.net.addresses import Source
from twisted_net.sessions import Session

PermissionsOf: TypeAlias = Callable[[str | None], Permissions]
"""Returns the permissions of a user by name; for None, those of a peer without a certificate."""


def enter(session: Session, source: Source, permissions_of: PermissionsOf | None) -> None:
    """Log a session in as the user that its peer's certificate names, if it names one."""
    session.identity = identity_of(source)
    if permissions_of is not None:
        session.permissions = permissions_of(session.identity)
        if session.identity is not None:
            session.sessions.audit("login", session, "by certificate")


def check_user(session: Session) -> None:
    """
    Check that the peer is a user, if users are configured.

    :raises AuthRequired: if it is not.
    """
    if session.permissions is not None and session.user is None:
        raise AuthRequired
