"""
HTTP client with retries, a cache, limits and a guard against server-side request forgery.

The names below are public, and so are those of :mod:`twisted_net.http.cache`,
:mod:`twisted_net.http.retry` and :mod:`twisted_net.http.treq`; all modules of the package are
internal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_net.config.tls import ClientTlsSettings as ClientTlsSettings
    from twisted_net.http.agent import HTTPAgent as HTTPAgent
    from twisted_net.http.calls.authentication import BearerToken as BearerToken
    from twisted_net.http.calls.authentication import DigestAuth as DigestAuth
    from twisted_net.http.calls.http_request import HttpRequest as HttpRequest
    from twisted_net.http.calls.links import WebLink as WebLink
    from twisted_net.http.calls.options import RequestOptions as RequestOptions
    from twisted_net.http.calls.progress import TransferProgress as TransferProgress
    from twisted_net.http.calls.server_sent_events import ServerSentEvent as ServerSentEvent
    from twisted_net.http.calls.timeouts import Timeouts as Timeouts
    from twisted_net.http.client import Client as Client
    from twisted_net.http.errors import AddressRefused as AddressRefused
    from twisted_net.http.errors import BadResponse as BadResponse
    from twisted_net.http.errors import BadStatus as BadStatus
    from twisted_net.http.errors import BodyItemTooLong as BodyItemTooLong
    from twisted_net.http.errors import BodyMismatch as BodyMismatch
    from twisted_net.http.errors import BodyTooLarge as BodyTooLarge
    from twisted_net.http.errors import CannotConnect as CannotConnect
    from twisted_net.http.errors import CircuitOpen as CircuitOpen
    from twisted_net.http.errors import ClientClosed as ClientClosed
    from twisted_net.http.errors import ConnectionBroken as ConnectionBroken
    from twisted_net.http.errors import FetchTimeout as FetchTimeout
    from twisted_net.http.errors import InvalidURL as InvalidURL
    from twisted_net.http.errors import LookupsBusy as LookupsBusy
    from twisted_net.http.errors import NameNotFound as NameNotFound
    from twisted_net.http.errors import OriginBusy as OriginBusy
    from twisted_net.http.errors import OutOfResources as OutOfResources
    from twisted_net.http.errors import ProxyFailed as ProxyFailed
    from twisted_net.http.errors import TLSFailed as TLSFailed
    from twisted_net.http.errors import TooManyRedirects as TooManyRedirects
    from twisted_net.http.fetch import Fetcher as Fetcher
    from twisted_net.http.fields import HeaderFields as HeaderFields
    from twisted_net.http.origins import OriginTable as OriginTable
    from twisted_net.http.response import Response as Response
    from twisted_net.http.settings import EgressPolicy as EgressPolicy
    from twisted_net.http.settings import FetchSettings as FetchSettings
    from twisted_net.http.settings import HttpSettings as HttpSettings
    from twisted_net.http.streaming import StreamedResponse as StreamedResponse
else:
    from twisted_net import lazy_exports

    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "agent": ["HTTPAgent"],
            "calls.authentication": ["BearerToken", "DigestAuth"],
            "calls.http_request": ["HttpRequest"],
            "calls.links": ["WebLink"],
            "calls.options": ["RequestOptions"],
            "calls.progress": ["TransferProgress"],
            "calls.server_sent_events": ["ServerSentEvent"],
            "calls.timeouts": ["Timeouts"],
            "client": ["Client"],
            "errors": [
                "AddressRefused",
                "BadResponse",
                "BadStatus",
                "BodyItemTooLong",
                "BodyMismatch",
                "BodyTooLarge",
                "CannotConnect",
                "CircuitOpen",
                "ClientClosed",
                "ConnectionBroken",
                "FetchTimeout",
                "InvalidURL",
                "NameNotFound",
                "OriginBusy",
                "LookupsBusy",
                "OutOfResources",
                "ProxyFailed",
                "TLSFailed",
                "TooManyRedirects",
            ],
            "fetch": ["Fetcher"],
            "fields": ["HeaderFields"],
            "origins": ["OriginTable"],
            "response": ["Response"],
            "settings": ["ClientTlsSettings", "EgressPolicy", "FetchSettings", "HttpSettings"],
            "streaming": ["StreamedResponse"],
        },
    )
