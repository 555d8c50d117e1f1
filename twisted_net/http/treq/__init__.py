"""
treq's client over this package's agent, for programs that keep treq's calls.

The name below is public; all modules of the package are internal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_net.http.treq.client import HTTPClient as HTTPClient
else:
    from twisted_net import lazy_exports

    __getattr__, __dir__, __all__ = lazy_exports(__name__, {"client": ["HTTPClient"]})
