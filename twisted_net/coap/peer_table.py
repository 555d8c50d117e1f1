"""Table of a CoAP endpoint's peers and of what each sent: message deduplication (RFC 7252 §4.5)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import islice

from twisted_net.coap.exchange import IncomingMessage, IncomingState, Peer
from twisted_net.coap.settings import TransmissionParameters
from twisted_net.net.addresses import Source
from twisted_net.net.memory_ledger import MemoryAccount, MemoryLedger
from twisted_net.turns.steps import WRITE

SWEPT_AT_ONCE = 256
"""Peers that one sweep removes or moves; the next one follows at once if there are more."""

IDLE_PEERS_TRIED = 8
"""Peers examined, least recently active first, to find one that can be evicted."""

MESSAGES_SWEPT_AT_ONCE = 1024
"""
Messages that one sweep, or one relief of memory, removes: 1 ms. A peer has up to ``max_exchanges``.
"""

EXPIRED_AT_ONCE = 8
"""
Messages whose lifetime is over that are dropped as another one of their peer comes: more than one,
so that none stays for long, and few, as 50,000 may be over at once.
"""

PENDING_TRIED = 8
"""
Messages of a peer examined, oldest first, to find one that can be evicted; those that are not
answered yet go behind the others, so that the next search begins after them.
"""

PEER_BYTES = 1350
"""Bytes of a peer, without its session."""

EXCHANGE_BYTES = 400
"""Bytes of a message of a peer that is kept, beside the reply to it."""

UNCOUNTED = 1024
"""Bytes of a change that need not be counted, as they are few: most requests are answered so."""


class PeerTable:
    """
    Keeps the state of each peer, and its messages for their lifetime, within limits.

    At ``max_exchanges`` messages or ``max_exchange_bytes`` of replies, the oldest message is
    evicted: that of the storing peer if it has more than an equal share, otherwise that of the
    least recently active peer. Requests that are not answered yet are never evicted, so that none
    runs twice: whoever answers them limits how many there are.

    :param memory: counts what is kept for each peer; a ledger of its own if None.
    :param relieve: drops what can be dropped of a peer, by :meth:`drop_messages` and otherwise;
        that alone if None.
    :ivar peers: all peers, least recently active first.
    :ivar latest: the last of them, or None if that is not known.
    :ivar exchanges: messages kept.
    :ivar reply_bytes: bytes of the replies kept for duplicates.
    :ivar evicted: messages dropped before the end of their lifetime, because of a limit.
    :ivar sweep_at: when :meth:`sweep` is due, or None.
    """

    def __init__(
        self,
        limits: TransmissionParameters,
        memory: MemoryLedger | None = None,
        relieve: Callable[[Peer], float] | None = None,
    ) -> None:
        self._limits = limits
        self._kept: MemoryAccount[Peer] = (memory or MemoryLedger()).account(
            "coap_exchanges", relieve=relieve or self.drop_messages
        )
        self._lifetime = limits.exchange_lifetime
        self.peers: OrderedDict[Source, Peer] = OrderedDict()
        self.latest: Peer | None = None
        self.exchanges = 0
        self.reply_bytes = 0
        self.evicted = 0
        self.sweep_at: float | None = None

    def admit(self, source: Source, first_id: int, now: float) -> Peer | None:
        """
        Add a peer, and return it; None if the table is full of peers that are not idle.

        :param first_id: where the message IDs towards it begin.
        """
        if len(self.peers) >= self._limits.max_peers and not self._evict_idle_peer():
            return None
        peer = self.peers[source] = self.latest = Peer(source, first_id, now)
        self.weigh(peer)
        if self.sweep_at is None:
            self.sweep_at = now + self._lifetime
        return peer

    def sweep(self, now: float) -> None:
        """
        Remove the peers inactive for a lifetime towards which no message ID is in use.

        If there are more than :data:`SWEPT_AT_ONCE`, or they have more messages than
        :data:`MESSAGES_SWEPT_AT_ONCE`, the next sweep is due at once.
        """
        inactive = []
        for source, peer in islice(self.peers.items(), SWEPT_AT_ONCE):
            if peer.last_received + self._lifetime > now:
                break
            inactive.append((source, peer))
        left = MESSAGES_SWEPT_AT_ONCE
        for source, peer in inactive:
            if peer.idle and peer.ids.expires <= now:
                left -= self._drop_oldest(peer, left)
                if peer.received:
                    break
                self._remove_peer(peer)
            else:
                self.peers.move_to_end(source)
                peer.last_received = now
        self.latest = None
        oldest = next(iter(self.peers.values()), None)
        if oldest is None:
            self.sweep_at = None
        elif len(inactive) == SWEPT_AT_ONCE or left == 0:
            self.sweep_at = now
        else:
            # At least a second between two sweeps, however close together peers fell silent.
            self.sweep_at = max(oldest.last_received + self._lifetime, now + 1)

    def record(self, peer: Peer, incoming: IncomingMessage, now: float) -> None:
        """Keep a message of a peer, and drop some of those whose lifetime is over."""
        received = peer.received
        for _ in range(min(EXPIRED_AT_ONCE, len(received))):
            oldest = next(iter(received.values()))
            if oldest.expires > now:
                break
            if oldest.state is not _SETTLED:
                # Still unanswered after its lifetime: out of the way of those behind it.
                oldest.expires = now + self._lifetime
                received.move_to_end(oldest.message_id)
                continue
            self.remove(peer, oldest)
        received[incoming.message_id] = incoming
        self.exchanges += 1
        limit = self._limits.max_exchanges
        while self.exchanges > limit:
            if not self._evict_oldest(peer, len(received) * len(self.peers) > limit):
                break

    def weigh(self, peer: Peer, least: int = UNCOUNTED) -> None:
        """
        Count what is kept for a peer, after it has changed; that may :meth:`drop_messages`.

        :param least: bytes of a change that is counted.
        """
        size = PEER_BYTES + EXCHANGE_BYTES * len(peer.received)
        size += peer.reply_bytes + peer.outgoing_bytes
        if abs(size - peer.counted) >= least and self.peers.get(peer.source) is peer:
            peer.counted = size
            self._kept.set(peer, size)

    def drop_messages(self, peer: Peer) -> float:
        """
        Drop the oldest answered messages of a peer, :data:`MESSAGES_SWEPT_AT_ONCE` at most.

        With the last of them the peer itself is removed, if nothing is due for it: sources that
        ask once each, which may be forged, would fill the memory of all otherwise. The latest one
        stays, as its message may be in process now.

        :return: the share of a step that this takes.
        """
        answered = (each for each in peer.received.values() if each.state is _SETTLED)
        dropped = list(islice(answered, MESSAGES_SWEPT_AT_ONCE))
        for incoming in dropped:
            self.remove(peer, incoming)
        self.evicted += len(dropped)
        if (
            not peer.received
            and peer.idle
            and next(reversed(self.peers.values()), peer) is not peer
        ):
            self._remove_peer(peer)
        else:
            self.weigh(peer, 1)
        return max(WRITE, len(dropped) / MESSAGES_SWEPT_AT_ONCE)

    def store_reply(self, peer: Peer, incoming: IncomingMessage, reply: bytes) -> None:
        """Keep the datagram that answers duplicates of *incoming*."""
        if peer.received.get(incoming.message_id) is not incoming:
            return
        grown = len(reply) - len(incoming.reply or b"")
        incoming.reply = reply
        peer.reply_bytes += grown
        self.reply_bytes += grown
        limit = self._limits.max_exchange_bytes
        while self.reply_bytes > limit:
            if not self._evict_oldest(peer, peer.reply_bytes * len(self.peers) > limit):
                break
        self.weigh(peer)

    def remove(self, peer: Peer, incoming: IncomingMessage) -> None:
        """Keep a message no longer, if it is still kept."""
        if peer.received.get(incoming.message_id) is incoming:
            del peer.received[incoming.message_id]
            self.exchanges -= 1
            size = len(incoming.reply or b"")
            peer.reply_bytes -= size
            self.reply_bytes -= size

    def _evict_idle_peer(self) -> bool:
        for _ in range(min(IDLE_PEERS_TRIED, len(self.peers))):
            source, peer = next(iter(self.peers.items()))
            if peer.idle:
                self.evicted += len(peer.received)
                self._remove_peer(peer)
                return True
            self.peers.move_to_end(source)
        self.latest = None
        return False

    def _drop_oldest(self, peer: Peer, limit: int) -> int:
        """Keep so many of a peer's messages no longer; return how many they were."""
        count = min(limit, len(peer.received))
        for _ in range(count):
            self.remove(peer, next(iter(peer.received.values())))
        return count

    def _remove_peer(self, peer: Peer) -> None:
        self.exchanges -= len(peer.received)
        self.reply_bytes -= peer.reply_bytes
        peer.due = None
        del self.peers[peer.source]
        self._kept.set(peer, 0)

    def _evict_oldest(self, peer: Peer, over_share: bool) -> bool:
        """Evict one message: of *peer*, or of the least recently active peer that has one."""
        candidates = [peer]
        if not over_share:
            candidates = [known for known, _ in zip(self.peers.values(), range(8), strict=False)]
            candidates.append(peer)
        for candidate in candidates:
            received = candidate.received
            for _ in range(min(PENDING_TRIED, len(received))):
                incoming = next(iter(received.values()))
                if incoming.state is _SETTLED:
                    self.remove(candidate, incoming)
                    self.evicted += 1
                    self.weigh(candidate)
                    return True
                received.move_to_end(incoming.message_id)
        return False


_SETTLED = IncomingState.SETTLED
