"""
Amplification guard: keeps a datagram server from being used in reflection attacks.

The source address of a datagram can be forged. An answer goes to that address, so a server can be
made to send a third party more than it was sent (amplification), and two servers can be made to
answer each other for ever (a loop). Two rules prevent both, whatever is sent:

- An answer is shorter than its question; only the ``PONG`` to a ``PING`` is as long. So a server
  never sends more than it was sent, and because every answer that is taken for a question gets a
  shorter one, a chain of answers among any number of such servers ends.
- Source ports of services that answer whatever they are sent get no answer, nor do our own
  ports: the first rule binds our servers alone.

A rate limit for each network bounds the rest, such as a loop with an unknown service.
"""

from __future__ import annotations

from twisted_net.net.addresses import Source, network_of
from twisted_net.net.rate_limit import RateLimiter
from twisted_net.udp.limits import DatagramLimits
from twisted_net.udp.responder import DatagramResponder, Wall

PAD = b"PAD"
"""
Answer to a question that is shorter than its answer: send it again, padded with white space.

It is shorter than every command and every number, so that a client without padding learns of it.
"""


class AmplificationGuard:
    """
    Answers as a responder does, except where the answer could be used against others.

    :param responder: makes the answers and holds the counts.
    :ivar own_ports: our own listening ports: a datagram from such a port comes from a server like
        this one.
    """

    def __init__(self, responder: DatagramResponder, limits: DatagramLimits) -> None:
        self.own_ports: set[int] = set()
        self._answer = responder.answer
        self._counts = responder.counts
        self._lowest_port = limits.lowest_source_port
        self._reflectors = frozenset(limits.reflector_ports)
        self._refusal = PAD if limits.refusal == "pad" else None
        rate = limits.datagrams_per_network
        self._rates = None if rate is None else RateLimiter(rate, limits.datagram_burst)

    def answer(self, data: bytes, source: Source, now: float, wall: Wall) -> bytes | None:
        """
        Return the answer to one datagram, or None where there is none or none may be sent.

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
        if rates is not None and rates.take(network_of(host), now):
            counts.received += 1
            counts.rate_limited += 1
            return None
        answer = self._answer(data, source, now, wall)
        if answer is None or len(answer) < len(data):
            return answer
        if answer == b"PONG" and data.upper() == b"PING":
            return answer
        counts.too_short += 1
        refusal = self._refusal
        return refusal if refusal is not None and len(refusal) < len(data) else None
