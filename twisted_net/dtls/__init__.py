"""
DTLS 1.2 over UDP (RFC 6347): server and client for any datagram protocol.

The names below are public; all other modules and names are internal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_net.dtls.client import DtlsClient as DtlsClient
    from twisted_net.dtls.errors import DtlsEnded as DtlsEnded
    from twisted_net.dtls.errors import DtlsError as DtlsError
    from twisted_net.dtls.errors import DtlsFailed as DtlsFailed
    from twisted_net.dtls.peer import SecurePeer as SecurePeer
    from twisted_net.dtls.peer import identity_of as identity_of
    from twisted_net.dtls.server import DtlsServer as DtlsServer
    from twisted_net.dtls.server import listen_dtls as listen_dtls
    from twisted_net.dtls.session import client_context as client_context
    from twisted_net.dtls.session import server_context as server_context
    from twisted_net.dtls.settings import DtlsClientSettings as DtlsClientSettings
    from twisted_net.dtls.settings import DtlsSettings as DtlsSettings
else:
    from twisted_net import lazy_exports

    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "client": ["DtlsClient"],
            "errors": ["DtlsEnded", "DtlsError", "DtlsFailed"],
            "peer": ["SecurePeer", "identity_of"],
            "server": ["DtlsServer", "listen_dtls"],
            "session": ["client_context", "server_context"],
            "settings": ["DtlsClientSettings", "DtlsSettings"],
        },
    )
