"""
Plain datagrams over UDP: server, client, sockets and multicast groups.

The names below are public; all other modules and names are internal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_net.udp.client import DatagramClient as DatagramClient
    from twisted_net.udp.errors import DatagramClientClosed as DatagramClientClosed
    from twisted_net.udp.errors import DatagramError as DatagramError
    from twisted_net.udp.errors import DatagramHostNotFound as DatagramHostNotFound
    from twisted_net.udp.errors import DatagramRefused as DatagramRefused
    from twisted_net.udp.errors import DatagramTimeout as DatagramTimeout
    from twisted_net.udp.errors import DatagramUnreachable as DatagramUnreachable
    from twisted_net.udp.errors import TooManyQuestions as TooManyQuestions
    from twisted_net.udp.limits import DatagramClientSettings as DatagramClientSettings
    from twisted_net.udp.limits import DatagramLimits as DatagramLimits
    from twisted_net.udp.limits import GroupSettings as GroupSettings
    from twisted_net.udp.port import CappedPort as CappedPort
    from twisted_net.udp.responder import DatagramCounts as DatagramCounts
    from twisted_net.udp.responder import DatagramHandler as DatagramHandler
    from twisted_net.udp.responder import DatagramResponder as DatagramResponder
    from twisted_net.udp.server import DatagramServer as DatagramServer
    from twisted_net.udp.server import listen_at as listen_at
    from twisted_net.udp.server import listen_datagrams as listen_datagrams
    from twisted_net.udp.socket_spec import SocketSpec as SocketSpec
    from twisted_net.udp.socket_spec import parse_socket_spec as parse_socket_spec
else:
    from twisted_net import lazy_exports

    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "client": ["DatagramClient"],
            "errors": [
                "DatagramClientClosed",
                "DatagramError",
                "DatagramHostNotFound",
                "DatagramRefused",
                "DatagramTimeout",
                "DatagramUnreachable",
                "TooManyQuestions",
            ],
            "limits": ["DatagramClientSettings", "DatagramLimits", "GroupSettings"],
            "port": ["CappedPort"],
            "responder": ["DatagramCounts", "DatagramHandler", "DatagramResponder"],
            "server": ["DatagramServer", "listen_at", "listen_datagrams"],
            "socket_spec": ["SocketSpec", "parse_socket_spec"],
        },
    )
