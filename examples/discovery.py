"""Announces a server, and finds it again: ``python examples/discovery.py``."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from twisted_net.discovery.announcements import InstanceChange
from twisted_net.discovery.service import Announcer, DiscoveryListener
from twisted_net.discovery.settings import DiscoveryGroup, DiscoverySettings

# Loopback; leave it out to use the network that the routes lead to.
INTERFACES = ("lo",)


def show(change: InstanceChange) -> None:
    """Tell what happened."""
    instance = change.instance
    print(change.kind.value, instance.name, instance.host, dict(instance.services))


async def main(reactor: Any) -> None:  # Any: reactors have no one type
    """Announce for a second, then say goodbye."""
    settings = DiscoverySettings(interfaces=INTERFACES, interval=10)
    announcer = Announcer(reactor, reactor, settings, "kitchen", "1.0", lambda: {"tcp": 8888})
    listener = DiscoveryListener(reactor, reactor, DiscoveryGroup(interfaces=INTERFACES), show)
    listener.startService()
    announcer.startService()
    await deferLater(reactor, 1.0)
    announcer.stopService()
    await deferLater(reactor, 0.2)
    listener.stopService()


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
