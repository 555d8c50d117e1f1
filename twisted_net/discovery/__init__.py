"""
Discovery of servers on the local network by multicast announcements.

The names below are public; all other modules and names are internal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_net.discovery.announcements import ChangeKind as ChangeKind
    from twisted_net.discovery.announcements import Instance as Instance
    from twisted_net.discovery.announcements import InstanceChange as InstanceChange
    from twisted_net.discovery.service import Announcer as Announcer
    from twisted_net.discovery.service import DiscoveryListener as DiscoveryListener
    from twisted_net.discovery.settings import DiscoveryGroup as DiscoveryGroup
    from twisted_net.discovery.settings import DiscoverySettings as DiscoverySettings
else:
    from twisted_net import lazy_exports

    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "announcements": ["ChangeKind", "Instance", "InstanceChange"],
            "service": ["Announcer", "DiscoveryListener"],
            "settings": ["DiscoveryGroup", "DiscoverySettings"],
        },
    )
