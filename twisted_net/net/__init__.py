"""
Network basics: addresses, certificates, look-ups, rate limits, the reactor's clock.

The names below are public; all other modules and names are internal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_net.net.addresses import Source as Source
    from twisted_net.net.certificates import Certificates as Certificates
    from twisted_net.net.memory_ledger import MemoryLedger as MemoryLedger
    from twisted_net.net.name_lookups import NameLookups as NameLookups
    from twisted_net.net.reactor import AnyReactor as AnyReactor
    from twisted_net.net.reactor import DatagramReactor as DatagramReactor
    from twisted_net.net.reactor import Reactor as Reactor
    from twisted_net.net.reactor import ServiceReactor as ServiceReactor
    from twisted_net.net.reactor import ThreadedReactor as ThreadedReactor
    from twisted_net.net.steady_clock import steady as steady
    from twisted_net.net.steady_clock import steady_wall as steady_wall
else:
    from twisted_net import lazy_exports

    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "addresses": ["Source"],
            "certificates": ["Certificates"],
            "reactor": [
                "AnyReactor",
                "DatagramReactor",
                "Reactor",
                "ServiceReactor",
                "ThreadedReactor",
            ],
            "memory_ledger": ["MemoryLedger"],
            "name_lookups": ["NameLookups"],
            "steady_clock": ["steady", "steady_wall"],
        },
    )
