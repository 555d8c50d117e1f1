"""
The HTTP cache (RFC 9111): rules, the agent that applies them, stores in memory and in a file.

The names below are public; all modules of the package are internal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_net.http.cache.agent import CachingAgent as CachingAgent
    from twisted_net.http.cache.entry import Entry as Entry
    from twisted_net.http.cache.rules import Rules as Rules
    from twisted_net.http.cache.settings import CacheSettings as CacheSettings
    from twisted_net.http.cache.sqlite_store import SQLiteStore as SQLiteStore
    from twisted_net.http.cache.stores import MemoryStore as MemoryStore
    from twisted_net.http.cache.stores import Store as Store
else:
    from twisted_net import lazy_exports

    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "agent": ["CachingAgent"],
            "entry": ["Entry"],
            "rules": ["Rules"],
            "settings": ["CacheSettings"],
            "sqlite_store": ["SQLiteStore"],
            "stores": ["MemoryStore", "Store"],
        },
    )
