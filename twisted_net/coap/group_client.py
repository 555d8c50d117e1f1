"""Asks a group of CoAP servers, and collects their answers (RFC 7252 §8)."""

from __future__ import annotations

import secrets
from ipaddress import ip_address

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorFDSet, IReactorTime
from twisted.internet.protocol import DatagramProtocol
from typing_extensions import override

from twisted_net.coap.client_response import Response
from twisted_net.coap.codec import CoapMessage, Code, Type, encode_message, parse_message
from twisted_net.coap.errors import InvalidCoapURI, MalformedMessage
from twisted_net.coap.uris import parse_uri
from twisted_net.net.addresses import Source
from twisted_net.udp.multicast import sending_socket
from twisted_net.udp.port import CappedPort

WAIT = 8.0
"""
Seconds for answers: those of a leisure of 5 s (RFC 7252 §8.2), and some for the way.
"""

MAX_ANSWERS = 1000
"""Answers that are collected of one question; then it is over, so that no flood is kept."""

_LONGEST = 1280


@frozen
class GroupAnswer:
    """What one server of a group answered; its address may be forged."""

    source: Source
    response: Response


class _Answers(DatagramProtocol):
    """
    Collects the answers to one question.

    :ivar done: fires with them once there are enough, or it is cancelled.
    """

    noisy = False

    def __init__(self, token: bytes, most: int) -> None:
        self._token = token
        self._most = most
        self._found: dict[Source, GroupAnswer] = {}
        self.enough: Deferred[None] = Deferred(lambda deferred: deferred.callback(None))

    @property
    def found(self) -> list[GroupAnswer]:
        """The answers so far, one of each server, in the order in which they came."""
        return list(self._found.values())

    @override
    def datagramReceived(self, datagram: bytes, addr: Source) -> None:
        try:
            message = parse_message(datagram)
        except MalformedMessage:
            return
        if message.token != self._token or not message.is_response:
            return
        if addr in self._found or len(self._found) >= self._most:
            return
        options = tuple((int(number), value) for number, value in message.options)
        response = Response(message.code, message.payload, options)
        self._found[addr] = GroupAnswer(addr, response)
        if len(self._found) >= self._most and not self.enough.called:
            self.enough.callback(None)


async def ask_group(
    reactor: IReactorFDSet,
    clock: IReactorTime,
    uri: str,
    *,
    interface: str | None = None,
    hops: int = 1,
    wait: float = WAIT,
    most: int = MAX_ANSWERS,
) -> list[GroupAnswer]:
    """
    Send one GET, not confirmable, to a group of servers, and collect what they answer.

    It is sent once: silence may be that of servers with nothing to say, or of a datagram that was
    lost. An answer in blocks is its first block; ask that server alone for the whole.

    >>> answers = await ask_group(reactor, reactor, "coap://224.0.1.187/.well-known/core")

    :param interface: from which it leaves, a name or an address of IPv4; None: as routed.
    :param hops: routers that it passes, and one; 1 stays on the link.
    :param wait: seconds for answers.
    :param most: it is over before that where so many have come.
    :raises InvalidCoapURI: where its host is no address of a group.
    :raises CannotListenError: where there is no such interface.
    """
    target = parse_uri(uri)
    if target.secure or not target.numeric or not ip_address(target.host).is_multicast:
        raise InvalidCoapURI(uri, "its host must be a multicast address, without DTLS")
    token = secrets.token_bytes(8)
    answers = _Answers(token, most)
    try:
        opened = sending_socket(target.host, interface, hops)
    except OSError as error:
        raise CannotListenError(interface, 0, error) from error
    port = CappedPort(0, answers, "", _LONGEST, reactor, opened=opened)
    port.startListening()
    question = CoapMessage(
        Type.NON, Code.GET, int.from_bytes(secrets.token_bytes(2), "big"), token, target.options
    )
    timer = clock.callLater(wait, answers.enough.cancel)
    try:
        port.write(encode_message(question), (target.host, target.port))
        await answers.enough
    finally:
        if timer.active():
            timer.cancel()
        stopped = port.stopListening()
        if stopped is not None:
            await stopped
    return answers.found
