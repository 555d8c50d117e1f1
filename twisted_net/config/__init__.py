"""
Configuration: validated records, loaded from a file, the environment and options.

The names below are public; all other modules and names are internal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_net.config.loader import Layers as Layers
    from twisted_net.config.loader import Loaded as Loaded
    from twisted_net.config.loader import to_toml as to_toml
    from twisted_net.config.record import Record as Record
    from twisted_net.config.tls import TlsSettings as TlsSettings
else:
    from twisted_net import lazy_exports

    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "loader": ["Layers", "Loaded", "to_toml"],
            "record": ["Record"],
            "tls": ["TlsSettings"],
        },
    )
