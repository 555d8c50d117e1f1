"""
Sessions: the clients that are connected, whichever way they came.

The names below are public; all other modules and names are internal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_net.sessions.hooks import SessionHooks as SessionHooks
    from twisted_net.sessions.registry import Sessions as Sessions
    from twisted_net.sessions.session import Session as Session
else:
    from twisted_net import lazy_exports

    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {"hooks": ["SessionHooks"], "registry": ["Sessions"], "session": ["Session"]},
    )
