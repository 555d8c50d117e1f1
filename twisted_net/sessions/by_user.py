"""Sessions by user: who is logged in where, on all doors that share one of these."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_net.sessions.session import Session


class SessionsByUser:
    """The open sessions of each user, in the order in which they logged in."""

    def __init__(self) -> None:
        self._by_user: dict[str, dict[Session, None]] = {}

    def of(self, user: str) -> list[Session]:
        """Return the sessions of a user, the one that logged in first at the beginning."""
        return list(self._by_user.get(user, ()))

    def add(self, session: Session, user: str) -> None:
        """Add a session that has logged in; the last of those of its user."""
        self._by_user.setdefault(user, {})[session] = None

    def remove(self, session: Session, user: str) -> None:
        """Remove a session that ends, or logs in anew. Idempotent."""
        sessions = self._by_user.get(user)
        if sessions is not None:
            sessions.pop(session, None)
            if not sessions:
                del self._by_user[user]
