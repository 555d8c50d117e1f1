"""Shows the reactor ``quiet`` to twistd and twist; imported at every stale start."""

from __future__ import annotations

from twisted.application.reactors import Reactor

quiet = Reactor(
    "quiet",
    "twisted_net.quiet_reactor",
    "epoll, without a log context around each event: faster, for Linux",
)
