"""Ports for programs that cannot be told to take any that is free."""

from __future__ import annotations

import random
import socket

_GIVEN_OUT = 32_768
"""Linux gives out ports from here on: no connection takes one below it meanwhile."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has now, neither for TCP nor for UDP."""
    while True:
        port = random.randrange(_GIVEN_OUT // 2, _GIVEN_OUT)
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
