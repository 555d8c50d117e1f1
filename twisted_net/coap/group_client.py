"""CoAP multicast client: one GET to a group of servers, and their responses (RFC 7252 §8)."""

from __future__ import annotations

import secrets
from ipaddress import ip_address

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorFDSet, IReactorTime
from twisted.internet.protocol import DatagramProtocol
from typing_extensions import override

from twisted_net.coap.client_request import response_of
from twisted_net.coap.client_response import CoapResponse
from twisted_net.coap.codec import (
    CoapMessage,
    Code,
    Type,
    encode_message,
    parse_message,
    unknown_critical_option,
)
from twisted_net.coap.errors import InvalidCoapURI, MalformedMessage
from twisted_net.coap.uris import parse_uri
from twisted_net.config.type_checks import check_arguments, checked_range, checked_seconds
from twisted_net.net.addresses import Source
from twisted_net.net.steady_clock import steady
from twisted_net.udp.multicast import sending_socket
from twisted_net.udp.port import CappedPort

WAIT = 8.0
"""Seconds to wait for responses: a leisure of 5 s (RFC 7252 §8.2), and 3 s of latency."""

MAX_RESPONSES = 1000
"""Responses collected for one request; then it ends, so that a flood is not kept."""

_MAX_DATAGRAM = 1280


@frozen
class GroupResponse:
    """Response of one server of a group; its source address may be forged."""

    source: Source
    response: CoapResponse


class _ResponseCollector(DatagramProtocol):
    """
    Collects the responses to one request.

    :ivar complete: fires once *limit* servers have responded, or when it is cancelled.
    """

    noisy = False

    def __init__(self, token: bytes, limit: int) -> None:
        self._token = token
        self._limit = limit
        self._responses: dict[Source, GroupResponse] = {}
        self.complete: Deferred[None] = Deferred(lambda deferred: deferred.callback(None))

    @property
    def responses(self) -> list[GroupResponse]:
        """The responses so far: the first of each server, in the order of arrival."""
        return list(self._responses.values())

    @override
    def datagramReceived(self, datagram: bytes, addr: Source) -> None:
        try:
            message = parse_message(datagram)
        except MalformedMessage:
            return
        if message.token != self._token or not message.is_response:
            return
        if unknown_critical_option(message.options) is not None:
            return  # rejected in silence (RFC 7252 §5.4.1, §4.3)
        if addr in self._responses or len(self._responses) >= self._limit:
            return
        self._responses[addr] = GroupResponse(addr, response_of(message, message.payload))
        if len(self._responses) >= self._limit and not self.complete.called:
            self.complete.callback(None)


@check_arguments
async def get_from_group(
    reactor: IReactorFDSet,
    clock: IReactorTime,
    uri: str,
    *,
    interface: str | None = None,
    hops: int = 1,
    wait: float = WAIT,
    limit: int = MAX_RESPONSES,
) -> list[GroupResponse]:
    """
    Send one non-confirmable GET to a group of servers, and return their responses.

    It is sent once: a server that does not respond may have nothing to say, or a datagram was
    lost. Of a response in blocks the first block is returned; request the rest from that server.

    >>> responses = await get_from_group(reactor, reactor, "coap://224.0.1.187/.well-known/core")

    :param interface: name or IPv4 address of the interface to send from; None: as routed.
    :param hops: time to live (hop limit); 1 stays on the link.
    :param wait: seconds to wait for responses.
    :param limit: number of responses after which it returns at once.
    :raises ValueError: for *hops* that are not from 0 to 255, a negative *wait*, and a *limit* that
        is not from 1 to 1000.
    :raises InvalidCoapURI: if the host of *uri* is not a multicast address.
    :raises CannotListenError: if there is no such interface.
    """
    checked_range(hops, "hops", 0, 255)
    checked_range(limit, "limit", 1, MAX_RESPONSES)
    checked_seconds(wait, "wait")
    target = parse_uri(uri)
    if target.secure or not target.numeric or not ip_address(target.host).is_multicast:
        raise InvalidCoapURI(uri, "its host must be a multicast address, without DTLS")
    token = secrets.token_bytes(8)
    collector = _ResponseCollector(token, limit)
    try:
        opened = sending_socket(target.host, interface, hops)
    except OSError as error:
        raise CannotListenError(interface, 0, error) from error
    port = CappedPort(0, collector, "", _MAX_DATAGRAM, reactor, opened=opened)
    port.startListening()
    message_id = int.from_bytes(secrets.token_bytes(2), "big")
    request = CoapMessage(Type.NON, Code.GET, message_id, token, target.options)
    timer = steady(clock).callLater(wait, collector.complete.cancel)
    try:
        port.write(encode_message(request), (target.host, target.port))
        await collector.complete
    finally:
        if timer.active():
            timer.cancel()
        stopped = port.stopListening()
        if stopped is not None:
            await stopped
    return collector.responses
