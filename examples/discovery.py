"""Announce a server, and discover it: ``python examples/discovery.py``."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from twisted_net.discovery import (
    Announcer,
    DiscoveryGroup,
    DiscoveryListener,
    DiscoverySettings,
    InstanceChange,
)
from twisted_net.net import Reactor

# Loopback; omit it to use the interface that the routes choose.
INTERFACES = ("lo",)


def show(change: InstanceChange) -> None:
    """Print a change."""
    instance = change.instance
    print(change.kind.value, instance.name, instance.host, dict(instance.services))


async def main(reactor: Reactor) -> None:
    """Announce for a second, then withdraw."""
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
