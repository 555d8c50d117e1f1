"""File descriptors of the process: raises its limit, and serves as many connections as fit."""

from __future__ import annotations

import resource
from collections.abc import Sequence

from twisted.logger import Logger

from twisted_net.tcp.server import CommandFactory

SPARE_DESCRIPTORS = 256
"""File descriptors besides clients: ports, HTTP connections, files, rejected connections."""

log = Logger()


def fit_connections(servers: Sequence[CommandFactory]) -> None:
    """
    Raise the limit of file descriptors to what the servers need; lower theirs if it is not enough.

    The limit may be impossible to raise: over the hard limit, or forbidden by a sandbox. The
    process then keeps what it has. Each server serves the share of it that its own limit has of
    all limits: connections over it are rejected with an answer, which takes a descriptor, too.
    """
    wanted = sum(server.limits.max_connections for server in servers)
    needed = wanted + SPARE_DESCRIPTORS
    if not servers:
        return
    allowed, reason = raise_descriptor_limit(needed)
    if allowed is None or allowed >= needed:
        return
    # With a very low limit, half of it.
    available = allowed - min(SPARE_DESCRIPTORS, allowed // 2)
    for server in servers:
        share = available * server.limits.max_connections // wanted
        server.max_descriptors = max(1, share)
    log.warn(
        "only {allowed} file descriptors are allowed, and {needed} are needed for the "
        "max_connections of all listeners; {available} connections are served. Raise the limit "
        "(ulimit -n, LimitNOFILE of systemd), or lower max_connections{reason}",
        allowed=allowed,
        needed=needed,
        available=sum(server.max_descriptors for server in servers),
        reason=f"; it could not be raised: {reason}" if reason else "",
    )


def raise_descriptor_limit(needed: int) -> tuple[int | None, str]:
    """
    Raise the soft limit of file descriptors to *needed*, at most to the hard limit.

    :return: how many the process may open then, or None without a limit; and why the limit could
        not be raised, or the empty string.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None, ""
    if soft >= needed:
        return soft, ""
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if allowed <= soft:
        return soft, ""
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    # PermissionError in a sandbox; ValueError for more than the system allows any process.
    except (OSError, ValueError) as error:
        return soft, str(error)
    return allowed, ""
