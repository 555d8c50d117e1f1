"""Shows ``net`` to twistd and twist; imported at every stale start, so nothing else is here."""

from __future__ import annotations

from twisted.application.service import ServiceMaker

net = ServiceMaker(
    "twisted_net",
    "twisted_net.tap",
    "A command server over TCP, a datagram server over UDP and an HTTP client in one service.",
    "net",
)
