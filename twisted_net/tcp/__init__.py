"""
Commands over streams (TCP, TLS, WebSocket, Unix sockets): server and client.

The names below are public; all other modules and names are internal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_net.tcp.admission import Access as Access
    from twisted_net.tcp.client import CommandClient as CommandClient
    from twisted_net.tcp.client import server_endpoint as server_endpoint
    from twisted_net.tcp.endpoints import FastServerEndpoint as FastServerEndpoint
    from twisted_net.tcp.handshakes import Handshakes as Handshakes
    from twisted_net.tcp.limits import ClientSettings as ClientSettings
    from twisted_net.tcp.limits import Limits as Limits
    from twisted_net.tcp.listener import CommandPort as CommandPort
    from twisted_net.tcp.listener_settings import Listener as Listener
    from twisted_net.tcp.pipeline import Answer as Answer
    from twisted_net.tcp.proxy_header import TrustedProxies as TrustedProxies
    from twisted_net.tcp.proxy_protocol import ProxyFactory as ProxyFactory
    from twisted_net.tcp.server import CommandFactory as CommandFactory
    from twisted_net.tcp.tls import TlsFactory as TlsFactory
    from twisted_net.tcp.transport import listen_tcp as listen_tcp
    from twisted_net.tcp.unix import listen_unix as listen_unix
    from twisted_net.tcp.websocket import WebSocketFactory as WebSocketFactory
else:
    from twisted_net import lazy_exports

    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "admission": ["Access"],
            "client": ["CommandClient", "server_endpoint"],
            "endpoints": ["FastServerEndpoint"],
            "handshakes": ["Handshakes"],
            "limits": ["ClientSettings", "Limits"],
            "listener": ["CommandPort"],
            "listener_settings": ["Listener"],
            "pipeline": ["Answer"],
            "proxy_header": ["TrustedProxies"],
            "proxy_protocol": ["ProxyFactory"],
            "server": ["CommandFactory"],
            "tls": ["TlsFactory"],
            "transport": ["listen_tcp"],
            "unix": ["listen_unix"],
            "websocket": ["WebSocketFactory"],
        },
    )
