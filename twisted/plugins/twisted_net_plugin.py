"""Plugin of twistd and twist: the service ``net``. Imported whenever the plugin cache is stale."""

from __future__ import annotations

from twisted.application.service import ServiceMaker

net = ServiceMaker(
    "twisted_net",
    "twisted_net.tap",
    "A command server over TCP, a datagram server over UDP and an HTTP client in one service.",
    "net",
)
