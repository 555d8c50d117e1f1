"""CoAP message layer: retransmission, acknowledgement, deduplication and NSTART (RFC 7252 §4)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from struct import Struct

from twisted_net.coap.codec import CoapMessage, Type, encode_message, parse_message, rejection
from twisted_net.coap.errors import (
    CoapTimeout,
    MalformedMessage,
    QueueFull,
    ResetByPeer,
)
from twisted_net.coap.exchange import (
    INCOMING_TRANSITIONS,
    MAX_DELAYED,
    MAX_DELAYED_BYTES,
    OUTGOING_TRANSITIONS,
    OUTSTANDING,
    DelayedDatagram,
    Event,
    IncomingMessage,
    IncomingState,
    IncomingTrigger,
    MessageAcknowledged,
    MessageFailed,
    OutgoingMessage,
    OutgoingState,
    OutgoingTrigger,
    Peer,
    ResponseReceived,
    response_event,
)
from twisted_net.coap.message_counts import MessageCounts
from twisted_net.coap.peer_table import PeerTable
from twisted_net.coap.settings import TransmissionParameters
from twisted_net.net.addresses import Source
from twisted_net.net.memory_ledger import MemoryAccount, MemoryLedger

TIMERS_AT_ONCE = 64
"""
Timers that are served in one turn of the reactor: these take 1 ms, and most are of retransmissions.

Thousands of notifications that nobody acknowledges are due within a second.
"""


class MessageLayer:
    """
    Delivers messages between this endpoint and its peers over datagrams that may be lost,
    duplicated and reordered.

    It owns no socket and no timer. Pass each datagram to :meth:`receive`; after that, and after
    each ``send_…``, send what :meth:`messages_to_send` returns; call :meth:`advance` at
    :meth:`next_timeout`. Times are seconds of one steady clock that never goes back.

    A message repeated within its lifetime gets the reply of the first time and is no event:
    a request runs once. It is identified by its source, its message ID *and* its bytes, so that a
    peer which reuses an ID too early gets a reply of its own and not a stale one.

    Received messages and replies are kept within limits: see :class:`PeerTable`.

    No message ID is used twice towards a peer within its lifetime (§4.4). If all are in use, a
    queued message waits, and the response to a non-confirmable request is dropped. IDs towards a
    peer that was evicted because of ``max_peers`` continue from a counter shared by all peers:
    one can be reused early if 65,536 more were used meanwhile.

    :param first_id: where message IDs begin; drawn at random, so that a restart repeats none.
    :param memory: counts what is kept for peers; a ledger of its own if None.
    :ivar memory: the same.
    :param relieved: called with a peer that is to give way, before its messages are dropped.
    :param admits: returns whether a peer that is not kept yet may be, as its address is known not
        to be forged. What is received of others is an event as well, but is not kept, and its
        duplicates are not recognised, until :meth:`admit`. If None, every peer is kept.
    """

    def __init__(
        self,
        limits: TransmissionParameters | None = None,
        first_id: int = 0,
        memory: MemoryLedger | None = None,
        relieved: Callable[[Source], object] | None = None,
        admits: Callable[[Source, float], bool] | None = None,
    ) -> None:
        self._limits = limits = limits or TransmissionParameters()
        self.counts = MessageCounts()
        self._lifetime = limits.exchange_lifetime
        self._non_lifetime = limits.non_lifetime
        self._next_id = first_id & 0xFFFF
        self.memory = memory or MemoryLedger()
        self._relieved = relieved
        self._admits = admits
        self._table = PeerTable(limits, self.memory, self._relieve)
        self._kept_delayed: MemoryAccount[MessageLayer] = self.memory.account(
            "group_answers", MAX_DELAYED_BYTES
        )
        self._peers = self._table.peers
        self._by_id: dict[tuple[Source, int], OutgoingMessage] = {}
        self._by_token: dict[tuple[Source, bytes], OutgoingMessage] = {}
        self._outbox: list[tuple[bytes, Source]] = []
        # Requests received in this turn: most are answered before their ACK needs a timer.
        self._fresh: list[IncomingMessage] = []
        self._timers: list[
            tuple[float, int, IncomingMessage | OutgoingMessage | Peer | DelayedDatagram]
        ] = []
        self._timer_number = 0
        self._timer_limit = 1024
        self._delayed = 0

    @property
    def sizes(self) -> dict[str, int]:
        """How many entries and bytes are held; the first three have limits in the settings."""
        return {
            "peers": len(self._peers),
            "exchanges": self._table.exchanges,
            "exchange_bytes": self._table.reply_bytes,
            "outgoing": len(self._by_id) + len(self._by_token),
            "timers": len(self._timers),
            "delayed": self._delayed,
            "delayed_bytes": self._kept_delayed.total,
        }

    def figures(self) -> dict[str, int]:
        """Return all counters, and how many peers and exchanges are kept, by name."""
        counts = {name: getattr(self.counts, name) for name in MessageCounts.__slots__}
        return {
            **counts,
            "evicted": self._table.evicted,
            "peers": len(self._peers),
            "exchanges": self._table.exchanges,
        }

    # --- datagrams in, messages out ---

    def receive(
        self, datagram: bytes, source: Source, now: float, group: bool = False
    ) -> list[Event]:
        """
        Process a datagram and return its events; replies that are due at once are in the outbox.

        :param group: whether it was sent to a multicast address: then anything but a
            non-confirmable request is ignored, and nothing is rejected (RFC 7252 §8.1).
        """
        self.counts.received += 1
        try:
            message = parse_message(datagram)
        except MalformedMessage as error:
            self.counts.malformed += 1
            if error.rejected is not None and not group:
                self._outbox.append((rejection(error, error.rejected), source))
            return []
        kind = message.type
        if kind >= 2:  # ACK or RST
            return [] if group else self._receive_reply(message, source, now)
        if message.code == 0 or (group and (kind == 0 or message.code >= 32)):
            # An empty confirmable message is a ping, answered by a Reset (§4.3).
            if kind == 0 and not group:
                self._outbox.append((_EMPTY.pack(_RST, 0, message.message_id), source))
            return []
        table = self._table
        peer = self._peers.get(source)
        if peer is None:
            kept = self._keeps(message, source, now)
            first_id = self._next_id
            peer = table.admit(source, first_id, now) if kept else Peer(source, first_id, now)
            if peer is None:
                self.counts.peers_refused += 1
                return []
        elif peer is not table.latest:
            self._peers.move_to_end(source)
            table.latest = peer
        peer.last_received = now
        digest = hash(datagram)
        known = peer.received.get(message.message_id)
        if known is not None:
            if known.digest == digest and now < known.expires:
                self.counts.duplicates += 1
                if known.reply is not None:
                    self._outbox.append((known.reply, source))
                return []
            table.remove(peer, known)
        lifetime = self._lifetime if kind == 0 else self._non_lifetime
        incoming = IncomingMessage(peer, message, digest, len(datagram), now + lifetime, group)
        if peer is table.latest:  # else it is not kept
            table.record(peer, incoming, now)
        if message.code < 32:
            peer.unanswered += 1
            self._fresh.append(incoming)
            return [incoming]
        return self._receive_response(incoming, message, now)

    def admit(self, incoming: IncomingMessage, now: float) -> bool:
        """
        Keep a request and its peer from now on, as its address has been verified. Idempotent.

        :return: False if the table of peers is full: the request is to be dropped, as it might run
            twice.
        """
        source = incoming.source
        if self._peers.get(source) is incoming.peer:
            return True
        peer = self._table.admit(source, self._next_id, now)
        if peer is None:
            self.counts.peers_refused += 1
            return False
        incoming.peer = peer
        self._table.record(peer, incoming, now)
        peer.unanswered += 1
        return True

    def _keeps(self, message: CoapMessage, source: Source, now: float) -> bool:
        """Whether what is received of a peer that is not kept is to be kept."""
        if self._admits is None or self._admits(source, now):
            return True
        # A notification, which may come long after anything else of its peer.
        return message.code >= 32 and (source, message.token) in self._by_token

    def send_request(
        self,
        message: CoapMessage,
        source: Source,
        now: float,
        chance: float,
        observing: bool = False,
    ) -> OutgoingMessage:
        """
        Send a request or a notification; it is queued if ``nstart`` messages are outstanding.

        Its type says whether it is confirmable; its message ID is set here.

        :param chance: a number drawn evenly from 0 to 1, for the first retransmission timeout.
        :param observing: whether responses after the first are expected too, until
            :meth:`cancel`.
        :return: the message as events refer to it.
        :raises QueueFull: if ``max_queued`` messages wait, or no peer can be evicted for this one.
        """
        peer = self._peers.get(source) or self._table.admit(source, self._next_id, now)
        if peer is None:
            raise QueueFull(self._limits.max_peers)
        limits = self._limits
        if len(peer.queue) >= limits.max_queued and peer.outstanding >= limits.nstart:
            raise QueueFull(limits.max_queued)
        outgoing = OutgoingMessage(peer, message, now, chance, observing)
        if outgoing.is_request:
            self._by_token[(source, message.token)] = outgoing
        self._queue(outgoing, now)
        return outgoing

    def send_untracked(self, message: CoapMessage, source: Source, now: float) -> bool:
        """
        Send a non-confirmable message that nothing answers, ahead of those in the queue.

        Its type and ID are set here; the ID is of the counter shared by all peers if their table
        is full. Return whether one was free: if not, the message is dropped, and counted.
        """
        peer = self._peers.get(source) or self._table.admit(source, self._next_id, now)
        peer = peer or Peer(source, self._next_id, now)
        if now < peer.ids.free_at():
            self.counts.responses_dropped += 1
            return False
        message.type = Type.NON
        message.message_id = self._take_id(peer, now + self._non_lifetime)
        self._outbox.append((encode_message(message), source))
        return True

    def send_response(
        self,
        incoming: IncomingMessage,
        message: CoapMessage | None,
        now: float,
        chance: float = 0.0,
        delay: float = 0.0,
    ) -> OutgoingMessage | None:
        """
        Answer a request: piggybacked on its acknowledgement if that is not sent yet, otherwise
        by a separate message.

        The type, the message ID and the token of *message* are set here.

        :param message: None for no response, as for most errors of a multicast request.
        :param delay: seconds to wait; only for the response to a non-confirmable request.
        :return: the message if its delivery is tracked, else None.
        """
        state = incoming.state
        incoming.state = INCOMING_TRANSITIONS[state, _RESPONSE]
        incoming.message = None
        incoming.due = None
        peer = incoming.peer
        peer.unanswered -= 1
        self._table.weigh(peer)
        if message is None:
            return None
        message.token = incoming.token
        if not incoming.confirmable:
            if now < peer.ids.free_at():
                # The client no longer waits for it by the time that an ID is free.
                self.counts.responses_dropped += 1
                return None
            message.type = Type.NON
            message.message_id = self._take_id(peer, now + delay + self._non_lifetime)
            self._send_later(encode_message(message), incoming.source, now, delay)
            return None
        if state is _PENDING:
            message.type = _PIGGYBACKED
            message.message_id = incoming.message_id
            datagram = encode_message(message)
            self._table.store_reply(peer, incoming, datagram)
            self._outbox.append((datagram, incoming.source))
            return None
        if len(peer.queue) >= self._limits.max_queued and peer.outstanding >= self._limits.nstart:
            # A peer that asks on, and acknowledges none of them, would have any number.
            self.counts.responses_dropped += 1
            return None
        message.type = Type.CON
        outgoing = OutgoingMessage(peer, message, now, chance, False)
        self._queue(outgoing, now)
        return outgoing

    def acknowledge(self, incoming: IncomingMessage, now: float) -> None:
        """Send no response to a request; one that is confirmable is acknowledged (RFC 7967 §2)."""
        pending = incoming.state is _PENDING
        self.send_response(incoming, None, now)
        if incoming.confirmable and pending:
            ack = _EMPTY.pack(_ACK, 0, incoming.message_id)
            self._table.store_reply(incoming.peer, incoming, ack)
            self._outbox.append((ack, incoming.source))

    def reject(self, incoming: IncomingMessage) -> None:
        """
        Reject a request: with a Reset if it is confirmable, else in silence (§4.2, §4.3).

        Nothing is kept of it: a duplicate is rejected anew.
        """
        self.send_response(incoming, None, 0.0)
        self._table.remove(incoming.peer, incoming)
        if incoming.confirmable:
            self._outbox.append((_EMPTY.pack(_RST, 0, incoming.message_id), incoming.source))

    def messages_to_send(self) -> list[tuple[bytes, Source]]:
        """Return the datagrams to send now, in order, and remove them from the outbox."""
        if self._fresh:
            fresh, self._fresh = self._fresh, []
            for incoming in fresh:
                if incoming.state is _PENDING and incoming.confirmable:
                    # Counted from its arrival; the few microseconds since then do not matter.
                    due = incoming.expires - self._lifetime + self._limits.ack_delay
                    self._schedule(incoming, due)
        outbox = self._outbox
        if outbox:
            self._outbox = []
            self.counts.sent += len(outbox)
        return outbox

    def next_timeout(self) -> float | None:
        """Return the time at which :meth:`advance` is due, or None if no timer runs."""
        timers = self._timers
        while timers and timers[0][2].due != timers[0][0]:
            heappop(timers)
        sweep_at = self._table.sweep_at
        if not timers:
            return sweep_at
        due = timers[0][0]
        return due if sweep_at is None else min(due, sweep_at)

    def advance(self, now: float) -> list[Event]:
        """
        Retransmit, acknowledge, expire what is due; return an event for each failed message.

        Of many timers :data:`TIMERS_AT_ONCE` are served; the next call is due at once then.
        """
        events: list[Event] = []
        timers = self._timers
        served = 0
        while timers and timers[0][0] <= now and served < TIMERS_AT_ONCE:
            due, _, item = heappop(timers)
            if item.due != due:
                continue
            served += 1
            item.due = None
            if isinstance(item, OutgoingMessage):
                self._time_out(item, now, events)
            elif isinstance(item, IncomingMessage):
                item.state = INCOMING_TRANSITIONS[item.state, IncomingTrigger.ACK_DUE]
                ack = _EMPTY.pack(_ACK, 0, item.message_id)
                self._table.store_reply(item.peer, item, ack)
                self._outbox.append((ack, item.source))
            elif isinstance(item, Peer):
                self._transmit_queued(item, now)
            else:
                self._delayed -= 1
                self._kept_delayed.add(self, -len(item.datagram))
                self._outbox.append((item.datagram, item.source))
        sweep_at = self._table.sweep_at
        if sweep_at is not None and sweep_at <= now:
            self._table.sweep(now)
        return events

    def cancel(self, outgoing: OutgoingMessage, now: float) -> None:
        """Stop sending a message of ours, and expect no response to it: no event follows."""
        self._release_token(outgoing)
        if outgoing.state in (OutgoingState.DONE, OutgoingState.FAILED):
            return
        if outgoing.state is OutgoingState.QUEUED:
            outgoing.peer.unqueue(outgoing)
        self._apply(outgoing, OutgoingTrigger.CANCEL, now)

    # --- messages of ours ---

    def _queue(self, outgoing: OutgoingMessage, now: float) -> None:
        peer = outgoing.peer
        peer.queue.append(outgoing)
        peer.outgoing_bytes += outgoing.size
        self._transmit_queued(peer, now)
        self._table.weigh(peer)

    def _relieve(self, peer: Peer) -> float:
        """Drop what is kept for a peer, but for what is answered or acknowledged just now."""
        if self._relieved is not None:
            self._relieved(peer.source)
        queue, peer.queue = peer.queue, deque()
        for outgoing in queue:
            self._release_token(outgoing)
            self._apply(outgoing, OutgoingTrigger.CANCEL, 0.0)
        return self._table.drop_messages(peer)

    def _apply(self, outgoing: OutgoingMessage, trigger: OutgoingTrigger, now: float) -> bool:
        """Change the state of a message as the table says; return whether it has such a change."""
        before = outgoing.state
        after = OUTGOING_TRANSITIONS.get((before, trigger))
        if after is None:
            return False
        outgoing.state = after
        if after >= OutgoingState.DONE:
            outgoing.due = None
            if after is OutgoingState.FAILED or not outgoing.observing:
                self._release_token(outgoing)
            outgoing.peer.outgoing_bytes -= outgoing.size
            self._table.weigh(outgoing.peer)
        if before in OUTSTANDING:
            outgoing.peer.outstanding -= 1
            self._by_id.pop((outgoing.source, outgoing.message.message_id), None)
            if outgoing.peer.queue:
                self._transmit_queued(outgoing.peer, now)
        return True

    def _transmit_queued(self, peer: Peer, now: float) -> None:
        """Transmit queued messages, as far as NSTART and free message IDs allow."""
        while peer.queue and peer.outstanding < self._limits.nstart:
            free_at = peer.ids.free_at()
            if now < free_at:
                if peer.due is None:
                    self._schedule(peer, free_at)
                return
            self._transmit(peer.queue.popleft(), now)

    def _transmit(self, outgoing: OutgoingMessage, now: float) -> None:
        peer = outgoing.peer
        message = outgoing.message
        lifetime = self._lifetime if outgoing.confirmable else self._non_lifetime
        message.message_id = self._take_id(peer, now + lifetime)
        outgoing.datagram = encode_message(message)
        limits = self._limits
        if outgoing.confirmable:
            self._apply(outgoing, OutgoingTrigger.TRANSMIT_CON, now)
            spread = (limits.ack_random_factor - 1) * outgoing.chance
            outgoing.timeout = limits.ack_timeout * (1 + spread)
            due = now + outgoing.timeout
        else:
            self._apply(outgoing, OutgoingTrigger.TRANSMIT_NON, now)
            due = now + len(outgoing.datagram) / limits.probing_rate
        outgoing.sent_at = now
        peer.outstanding += 1
        self._by_id[(outgoing.source, message.message_id)] = outgoing
        self._schedule(outgoing, due)
        self._outbox.append((outgoing.datagram, outgoing.source))

    def _time_out(self, outgoing: OutgoingMessage, now: float, events: list[Event]) -> None:
        """Retransmit a message whose timeout has ended, wait for its response only, or fail it."""
        limits = self._limits
        if (
            outgoing.state is OutgoingState.UNACKNOWLEDGED
            and outgoing.retransmissions < limits.max_retransmit
        ):
            outgoing.retransmissions += 1
            outgoing.timeout *= 2
            self._schedule(outgoing, now + outgoing.timeout)
            self.counts.retransmissions += 1
            self._outbox.append((outgoing.datagram, outgoing.source))
            return
        self._apply(outgoing, OutgoingTrigger.TIMEOUT, now)
        if outgoing.state is OutgoingState.AWAITING_RESPONSE:
            self._schedule(outgoing, max(now, outgoing.sent_at + self._non_lifetime))
            return
        self.counts.timeouts += 1
        events.append(MessageFailed(outgoing, CoapTimeout(now - outgoing.sent_at)))

    def _receive_reply(self, message: CoapMessage, source: Source, now: float) -> list[Event]:
        """Process an acknowledgement or a Reset."""
        outgoing = self._by_id.get((source, message.message_id))
        if outgoing is None:
            return []
        outgoing.peer.last_received = now
        if message.type == Type.RST:
            if message.code == 0 and self._apply(outgoing, OutgoingTrigger.RESET, now):
                self.counts.resets += 1
                return [MessageFailed(outgoing, ResetByPeer())]
        elif not outgoing.confirmable:
            return []
        elif message.code == 0:
            if not outgoing.is_request:
                self._apply(outgoing, OutgoingTrigger.ACKNOWLEDGED, now)
                return [MessageAcknowledged(outgoing)]
            self._apply(outgoing, OutgoingTrigger.REQUEST_ACKNOWLEDGED, now)
            self._schedule(outgoing, now + self._lifetime)
        elif (
            message.code >= 64
            and outgoing.is_request
            and message.token == outgoing.message.token
            and self._apply(outgoing, OutgoingTrigger.RESPONSE, now)
        ):
            return [self._response_event(outgoing, message)]
        return []

    def _response_event(
        self, outgoing: OutgoingMessage, message: CoapMessage
    ) -> ResponseReceived | MessageFailed:
        """Return the event of a response; one with an unknown critical option fails (§5.4.1)."""
        event = response_event(outgoing, message)
        if isinstance(event, MessageFailed):
            self._release_token(outgoing)
        return event

    def _receive_response(
        self, incoming: IncomingMessage, message: CoapMessage, now: float
    ) -> list[Event]:
        """Process a separate response, or a notification."""
        incoming.state = IncomingState.SETTLED
        incoming.message = None
        outgoing = self._by_token.get((incoming.source, message.token))
        events: list[Event] = []
        head = _RST
        if outgoing is not None:
            expected = self._apply(outgoing, OutgoingTrigger.RESPONSE, now)
            if expected or (outgoing.observing and outgoing.state is OutgoingState.DONE):
                event = self._response_event(outgoing, message)
                events.append(event)
                head = _ACK if isinstance(event, ResponseReceived) else _RST
        reply = _EMPTY.pack(head, 0, incoming.message_id)
        if head == _RST:
            # Anybody can send it: a duplicate is rejected anew.
            self._table.remove(incoming.peer, incoming)
        elif incoming.confirmable:
            self._table.store_reply(incoming.peer, incoming, reply)
        if incoming.confirmable or head == _RST:
            self._outbox.append((reply, incoming.source))
        self._table.weigh(incoming.peer)
        return events

    def _release_token(self, outgoing: OutgoingMessage) -> None:
        key = (outgoing.source, outgoing.message.token)
        if self._by_token.get(key) is outgoing:
            del self._by_token[key]

    def _take_id(self, peer: Peer, expires: float) -> int:
        # The shared counter advances too: IDs of an evicted peer that comes back begin there.
        self._next_id = (self._next_id + 1) & 0xFFFF
        return peer.ids.take(expires)

    def _send_later(self, datagram: bytes, source: Source, now: float, delay: float) -> None:
        size = len(datagram)
        if delay <= 0:
            self._outbox.append((datagram, source))
        elif self._delayed < MAX_DELAYED and self._kept_delayed.total + size <= MAX_DELAYED_BYTES:
            self._delayed += 1
            self._kept_delayed.add(self, size)
            delayed = DelayedDatagram(datagram, source, now + delay)
            self._schedule(delayed, now + delay)
        else:
            self.counts.responses_dropped += 1

    def _schedule(
        self, item: IncomingMessage | OutgoingMessage | Peer | DelayedDatagram, due: float
    ) -> None:
        item.due = due
        self._timer_number += 1
        heappush(self._timers, (due, self._timer_number, item))
        if len(self._timers) > self._timer_limit:
            # Cancelled timers stay in the heap until they are due; here they are removed.
            self._timers = [timer for timer in self._timers if timer[2].due == timer[0]]
            heapify(self._timers)
            self._timer_limit = max(1024, 2 * len(self._timers))


_EMPTY = Struct(">BBH")
_RESPONSE, _PENDING, _PIGGYBACKED = IncomingTrigger.RESPONSE, IncomingState.PENDING, Type.ACK
_ACK = 0x40 | Type.ACK << 4
_RST = 0x40 | Type.RST << 4
