"""
CoAP (RFC 7252): server, client and message layer, also over DTLS.

The names below are public; all other modules and names are internal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_net.coap.client import CoapClient as CoapClient
    from twisted_net.coap.client_response import CoapResponse as CoapResponse
    from twisted_net.coap.client_response import Observation as Observation
    from twisted_net.coap.codec import Code as Code
    from twisted_net.coap.codec import Option as Option
    from twisted_net.coap.errors import CoapClientClosed as CoapClientClosed
    from twisted_net.coap.errors import CoapHostNotFound as CoapHostNotFound
    from twisted_net.coap.errors import CoapHostUnreachable as CoapHostUnreachable
    from twisted_net.coap.errors import CoapTimeout as CoapTimeout
    from twisted_net.coap.errors import InvalidCoapURI as InvalidCoapURI
    from twisted_net.coap.errors import ObservationRefused as ObservationRefused
    from twisted_net.coap.errors import QueueFull as QueueFull
    from twisted_net.coap.errors import ResetByPeer as ResetByPeer
    from twisted_net.coap.errors import ResourceChanged as ResourceChanged
    from twisted_net.coap.errors import SecureSessionFailed as SecureSessionFailed
    from twisted_net.coap.errors import TransferFailed as TransferFailed
    from twisted_net.coap.errors import UnexpectedCode as UnexpectedCode
    from twisted_net.coap.errors import UnknownOption as UnknownOption
    from twisted_net.coap.group_client import GroupResponse as GroupResponse
    from twisted_net.coap.group_client import get_from_group as get_from_group
    from twisted_net.coap.port import listen_coap as listen_coap
    from twisted_net.coap.server import CoapServer as CoapServer
    from twisted_net.coap.settings import CoapClientSettings as CoapClientSettings
    from twisted_net.coap.settings import CoapLimits as CoapLimits
    from twisted_net.coap.settings import limits_over_dtls as limits_over_dtls
else:
    from twisted_net import lazy_exports

    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "client": ["CoapClient"],
            "client_response": ["CoapResponse", "Observation"],
            "codec": ["Code", "Option"],
            "errors": [
                "CoapClientClosed",
                "CoapHostNotFound",
                "CoapHostUnreachable",
                "CoapTimeout",
                "InvalidCoapURI",
                "ObservationRefused",
                "QueueFull",
                "ResetByPeer",
                "ResourceChanged",
                "SecureSessionFailed",
                "TransferFailed",
                "UnexpectedCode",
                "UnknownOption",
            ],
            "group_client": ["GroupResponse", "get_from_group"],
            "port": ["listen_coap"],
            "server": ["CoapServer"],
            "settings": ["CoapClientSettings", "CoapLimits", "limits_over_dtls"],
        },
    )
