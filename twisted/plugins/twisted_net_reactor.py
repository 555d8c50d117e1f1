"""Plugin of twistd and twist: the reactor ``quiet``. Imported if the plugin cache is stale."""

from __future__ import annotations

from twisted.application.reactors import Reactor

quiet = Reactor(
    "quiet",
    "twisted_net.quiet_reactor",
    "epoll without a log context per event: faster; Linux only",
)
