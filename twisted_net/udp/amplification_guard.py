"""
Keeps a datagram server from being turned against others by those who forge their address.

Whoever sends a datagram writes its source address himself. An answer goes there, so that a server
can be made to send to a third party more than it is sent (amplification), and two servers can be
made to answer each other for ever (a loop). Two rules make both impossible, whatever is sent:

- An answer is shorter than its question; only the ``PONG`` to a ``PING`` is as long. So a server
  never sends more than it was sent; and as each answer that is taken for a question gets a
  shorter one, a chain of answers among any number of such servers ends.
- Ports from which other services answer whatever they are sent get no answer, nor do our own:
  the first rule binds our servers alone.

A rate for each network bounds what is left, such as a loop with a service that nobody has thought
of.
"""

from __future__ import annotations

from twisted_net.net.addresses import Source, network_of
from twisted_net.net.rate_limit import Rates
from twisted_net.udp.responder import DatagramLimits, DatagramResponder

PAD = b"PAD"
"""
What a question gets whose answer would be too long: ask again, with white space behind it.

It is shorter than every command and than every number, so that those who forget are told.
"""


class Guard:
    """
    Answers as a responder does, but nothing that could be turned against others.

    :param responder: gives the answers, and has the counts.
    :ivar own_ports: our own listening ports: what comes from such a port comes from a server
        like this one.
    """

    def __init__(self, responder: DatagramResponder, limits: DatagramLimits) -> None:
        self.own_ports: set[int] = set()
        self._answer = responder.answer
        self._counts = responder.counts
        self._lowest_port = limits.lowest_source_port
        self._reflectors = frozenset(limits.reflector_ports)
        self._refusal = PAD if limits.refusal == "pad" else None
        rate = limits.datagrams_per_network
        self._rates = None if rate is None else Rates(rate, limits.datagram_burst)

    def answer(self, data: bytes, source: Source, now: float, wall: float) -> bytes | None:
        """
        Give the answer to one datagram, or None where there is none, or none may be sent.

        The arguments are those of :meth:`DatagramResponder.answer`. A datagram from a port that
        is not answered, or over the rate of its network, is counted and not looked into.
        """
        counts = self._counts
        host, port = source
        if port < self._lowest_port or port in self._reflectors or port in self.own_ports:
            counts.received += 1
            counts.ignored += 1
            return None
        rates = self._rates
        if rates is not None:
            network = network_of(host)
            if rates.wait(network, now):
                counts.received += 1
                counts.rate_limited += 1
                return None
            rates.charge(network, now)
        answer = self._answer(data, source, now, wall)
        if answer is None or len(answer) < len(data):
            return answer
        if answer == b"PONG" and data.upper() == b"PING":
            return answer
        counts.too_short += 1
        refusal = self._refusal
        return refusal if refusal is not None and len(refusal) < len(data) else None
