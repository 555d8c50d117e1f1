"""CoAP's message layer (RFC 7252 §4): what is sent again, what is a duplicate, whose turn it is."""

from __future__ import annotations

from collections import OrderedDict
from heapq import heapify, heappop, heappush
from struct import Struct

from twisted_net.coap.codec import Message, Type, encode_message, parse_message
from twisted_net.coap.errors import MalformedMessage, PeerSilent, QueueFull, ResetByPeer
from twisted_net.coap.exchange import (
    IN_FLIGHT,
    NEXT_RECEIVING,
    NEXT_SENDING,
    Answer,
    Confirmed,
    Event,
    Failed,
    Incoming,
    Outgoing,
    Peer,
    Receiving,
    Sending,
    Step,
    Stimulus,
)
from twisted_net.coap.settings import Transmission
from twisted_net.net.addresses import Source

IDLE_PEERS_TRIED = 8
"""Peers looked at, from the one silent for longest, to find one that can be forgotten."""


class MessageCounts:
    """
    What happened since the start, in plain integers that only grow.

    :ivar received: datagrams; of these ``malformed`` were no messages and ``duplicates`` known,
        and ``refused`` came from a new peer while all known ones were busy.
    :ivar sent: datagrams; of these ``retransmitted`` were messages of ours sent again.
    :ivar timeouts: messages of ours that were given up.
    :ivar forgotten: remembered messages dropped before their time, as a limit was reached.
    :ivar unanswered: non-confirmable requests whose answer was dropped, as all message IDs
        towards that peer were in use.
    """

    __slots__ = (
        "duplicates",
        "forgotten",
        "malformed",
        "received",
        "refused",
        "retransmitted",
        "sent",
        "timeouts",
        "unanswered",
    )

    def __init__(self) -> None:
        self.received = 0
        self.malformed = 0
        self.duplicates = 0
        self.refused = 0
        self.sent = 0
        self.retransmitted = 0
        self.timeouts = 0
        self.forgotten = 0
        self.unanswered = 0


class _Postponed:
    """A datagram that leaves later: an answer to a group's question."""

    __slots__ = ("datagram", "due", "source")

    def __init__(self, datagram: bytes, source: Source, due: float) -> None:
        self.datagram = datagram
        self.source = source
        self.due: float | None = due


class MessageLayer:
    """
    Delivers messages between this endpoint and many peers over datagrams that may be lost,
    doubled and reordered.

    It owns no socket and no timer. Feed each datagram to :meth:`receive`; after that, and after
    each ``send_…``, let :meth:`messages_to_send` leave; call :meth:`advance` at
    :meth:`next_timeout`. Times are seconds of one steady clock that never goes back.

    A message that comes again within its lifetime is answered as the first time and is no event:
    a request runs once. It is known by its source, its message ID *and* its bytes, so that a peer
    which reuses an ID too early gets its own answer and not a stale one.

    What is remembered is bounded: ``max_exchanges`` messages and ``max_exchange_bytes`` of answers,
    of which a peer that has more than an equal share gives up its own oldest, and otherwise the
    peer that has been silent for longest. Requests still being answered are never given up.

    No message ID is used twice towards a peer within its lifetime (§4.4). Where all are in use, a
    message that is queued waits, and the answer to a non-confirmable request is dropped. A peer
    that was forgotten before its time, as ``max_peers`` was reached, begins where IDs of all
    peers have got to: there one can come again if 65,536 more were used meanwhile.

    :param first_id: where message IDs begin; drawn at random, so that a restart repeats none.
    """

    def __init__(self, limits: Transmission | None = None, first_id: int = 0) -> None:
        self._limits = limits = limits or Transmission()
        self.counts = MessageCounts()
        self._lifetime = limits.exchange_lifetime
        self._non_lifetime = limits.non_lifetime
        self._next_id = first_id & 0xFFFF
        self._peers: OrderedDict[Source, Peer] = OrderedDict()
        self._latest: Peer | None = None
        self._exchanges = 0
        self._stored = 0
        self._by_id: dict[tuple[Source, int], Outgoing] = {}
        self._by_token: dict[tuple[Source, bytes], Outgoing] = {}
        self._outbox: list[tuple[bytes, Source]] = []
        # Requests received in this turn: most are answered before an ACK's time need be kept.
        self._fresh: list[Incoming] = []
        self._timers: list[tuple[float, int, Incoming | Outgoing | Peer | _Postponed]] = []
        self._timer_number = 0
        self._most_timers = 1024
        self._sweep_at: float | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """How much is held: each figure but the last two has its limit in the settings."""
        return {
            "peers": len(self._peers),
            "exchanges": self._exchanges,
            "exchange_bytes": self._stored,
            "outgoing": len(self._by_id) + len(self._by_token),
            "timers": len(self._timers),
        }

    # --- the five verbs ---

    def receive(
        self, datagram: bytes, source: Source, now: float, group: bool = False
    ) -> list[Event]:
        """
        Take in a datagram, and give what it brings; what must be said at once is in the outbox.

        :param group: whether it came to a multicast address: then only a non-confirmable request
            counts, and nothing is rejected (RFC 7252 §8.1).
        """
        self.counts.received += 1
        try:
            message = parse_message(datagram)
        except MalformedMessage as error:
            self.counts.malformed += 1
            if error.rejected is not None and not group:
                self._outbox.append((_EMPTY.pack(_RST, 0, error.rejected), source))
            return []
        kind = message.type
        if kind >= 2:  # ACK or RST
            return [] if group else self._replied(message, source, now)
        if message.code == 0 or (group and (kind == 0 or message.code >= 32)):
            # An empty confirmable message is a ping (§4.3); a reset answers it.
            if kind == 0 and not group:
                self._outbox.append((_EMPTY.pack(_RST, 0, message.message_id), source))
            return []
        peer = self._peers.get(source)
        if peer is None:
            peer = self._admit(source, now)
            if peer is None:
                self.counts.refused += 1
                return []
        elif peer is not self._latest:
            self._peers.move_to_end(source)
            self._latest = peer
        peer.heard = now
        digest = hash(datagram)
        known = peer.received.get(message.message_id)
        if known is not None:
            if known.digest == digest and now < known.expires:
                self.counts.duplicates += 1
                if known.reply is not None:
                    self._outbox.append((known.reply, source))
                return []
            self._forget(peer, known)
        lifetime = self._lifetime if kind == 0 else self._non_lifetime
        incoming = Incoming(peer, message, digest, len(datagram), now + lifetime, group)
        self._remember(peer, incoming, now)
        if message.code < 32:
            peer.pending += 1
            self._fresh.append(incoming)
            return [incoming]
        return self._responded(incoming, message, now)

    def send_request(
        self, message: Message, source: Source, now: float, chance: float, keep: bool = False
    ) -> Outgoing:
        """
        Send a request or a notification; it waits for its turn where ``nstart`` are under way.

        Its type says whether it is confirmable; its message ID is set here.

        :param chance: a number drawn evenly from 0 to 1, for the wait before it is sent again.
        :param keep: whether responses after the first are wanted too (:meth:`cancel` ends that).
        :return: what events will name.
        :raises QueueFull: where as many wait as may, or all known peers are busy.
        """
        peer = self._peers.get(source) or self._admit(source, now)
        if peer is None:
            raise QueueFull(self._limits.max_peers)
        if len(peer.queue) >= self._limits.max_queued and peer.active >= self._limits.nstart:
            raise QueueFull(self._limits.max_queued)
        outgoing = Outgoing(peer, message, chance, keep)
        outgoing.began = now
        if outgoing.is_request:
            self._by_token[(source, message.token)] = outgoing
        peer.queue.append(outgoing)
        self._take_turns(peer, now)
        return outgoing

    def send_response(
        self,
        incoming: Incoming,
        message: Message | None,
        now: float,
        chance: float = 0.0,
        delay: float = 0.0,
    ) -> Outgoing | None:
        """
        Answer a request: in its acknowledgement if that is still due, else by a message of our own.

        The type, the message ID and the token of *message* are set here.

        :param message: None for silence, as is due to most errors of a group's question.
        :param delay: seconds to wait; only for an answer to a non-confirmable request.
        :return: the message, where its fate is followed; None where it is not.
        """
        state = incoming.state
        incoming.state = NEXT_RECEIVING[state, _RESPONSE]
        incoming.message = None
        incoming.due = None
        peer = incoming.peer
        peer.pending -= 1
        if message is None:
            return None
        message.token = incoming.token
        if not incoming.confirmable:
            if now < peer.ids.free_at():
                # No one waits for it by the time that an ID is free.
                self.counts.unanswered += 1
                return None
            message.type = Type.NON
            message.message_id = self._take_id(peer, now + delay + self._non_lifetime)
            self._post(encode_message(message), incoming.source, now, delay)
            return None
        if state is _PENDING:
            message.type = _PIGGYBACKED
            message.message_id = incoming.message_id
            datagram = encode_message(message)
            self._store(peer, incoming, datagram)
            self._outbox.append((datagram, incoming.source))
            return None
        message.type = Type.CON
        outgoing = Outgoing(peer, message, chance, False)
        outgoing.began = now
        # Never refused: each follows a request, of which a peer has so many under way.
        peer.queue.append(outgoing)
        self._take_turns(peer, now)
        return outgoing

    def messages_to_send(self) -> list[tuple[bytes, Source]]:
        """Give the datagrams that are to leave now, in order; they are given once."""
        if self._fresh:
            fresh, self._fresh = self._fresh, []
            for incoming in fresh:
                if incoming.state is _PENDING and incoming.confirmable:
                    # From its coming; the few microseconds since then do not matter.
                    due = incoming.expires - self._lifetime + self._limits.ack_delay
                    self._schedule(incoming, due)
        outbox = self._outbox
        if outbox:
            self._outbox = []
            self.counts.sent += len(outbox)
        return outbox

    def next_timeout(self) -> float | None:
        """Give the time at which :meth:`advance` has something to do, or None for never."""
        timers = self._timers
        while timers and timers[0][2].due != timers[0][0]:
            heappop(timers)
        if not timers:
            return self._sweep_at
        due = timers[0][0]
        return due if self._sweep_at is None else min(due, self._sweep_at)

    # --- and two more: time passes, and interest is lost ---

    def advance(self, now: float) -> list[Event]:
        """Do what is due: send again, acknowledge, give up, forget; give what came to nothing."""
        events: list[Event] = []
        timers = self._timers
        while timers and timers[0][0] <= now:
            due, _, item = heappop(timers)
            if item.due != due:
                continue
            item.due = None
            if isinstance(item, Outgoing):
                self._silent(item, now, events)
            elif isinstance(item, Incoming):
                item.state = NEXT_RECEIVING[item.state, Step.ACK_DUE]
                ack = _EMPTY.pack(_ACK, 0, item.message_id)
                self._store(item.peer, item, ack)
                self._outbox.append((ack, item.source))
            elif isinstance(item, Peer):
                self._take_turns(item, now)
            else:
                self._outbox.append((item.datagram, item.source))
        if self._sweep_at is not None and self._sweep_at <= now:
            self._sweep(now)
        return events

    def cancel(self, outgoing: Outgoing, now: float) -> None:
        """Lose interest in a message of ours: it is sent no more, and no event names it."""
        self._forget_token(outgoing)
        if outgoing.state in (Sending.DONE, Sending.FAILED):
            return
        if outgoing.state is Sending.QUEUED:
            outgoing.peer.queue.remove(outgoing)
        self._apply(outgoing, Stimulus.CANCEL, now)

    # --- messages of ours ---

    def _apply(self, outgoing: Outgoing, stimulus: Stimulus, now: float) -> bool:
        """Move a message on as the table says; tell whether it says anything."""
        before = outgoing.state
        after = NEXT_SENDING.get((before, stimulus))
        if after is None:
            return False
        outgoing.state = after
        if after >= Sending.DONE:
            outgoing.due = None
            if after is Sending.FAILED or not outgoing.keep:
                self._forget_token(outgoing)
        if before in IN_FLIGHT:
            outgoing.peer.active -= 1
            self._by_id.pop((outgoing.source, outgoing.message.message_id), None)
            if outgoing.peer.queue:
                self._take_turns(outgoing.peer, now)
        return True

    def _take_turns(self, peer: Peer, now: float) -> None:
        """Send what waits, as far as NSTART and the message IDs go."""
        while peer.queue and peer.active < self._limits.nstart:
            free_at = peer.ids.free_at()
            if now < free_at:
                if peer.due is None:
                    self._schedule(peer, free_at)
                return
            self._transmit(peer.queue.popleft(), now)

    def _transmit(self, outgoing: Outgoing, now: float) -> None:
        peer = outgoing.peer
        message = outgoing.message
        lifetime = self._lifetime if outgoing.confirmable else self._non_lifetime
        message.message_id = self._take_id(peer, now + lifetime)
        outgoing.datagram = encode_message(message)
        limits = self._limits
        if outgoing.confirmable:
            self._apply(outgoing, Stimulus.TURN, now)
            spread = (limits.ack_random_factor - 1) * outgoing.chance
            outgoing.timeout = limits.ack_timeout * (1 + spread)
            due = now + outgoing.timeout
        else:
            self._apply(outgoing, Stimulus.TURN_NON, now)
            due = now + len(outgoing.datagram) / limits.probing_rate
        outgoing.began = now
        peer.active += 1
        self._by_id[(outgoing.source, message.message_id)] = outgoing
        self._schedule(outgoing, due)
        self._outbox.append((outgoing.datagram, outgoing.source))

    def _silent(self, outgoing: Outgoing, now: float, events: list[Event]) -> None:
        """Nothing came for a message in its time: send it again, wait on, or give up."""
        limits = self._limits
        if outgoing.state is Sending.UNACKNOWLEDGED and outgoing.attempts < limits.max_retransmit:
            outgoing.attempts += 1
            outgoing.timeout *= 2
            self._schedule(outgoing, now + outgoing.timeout)
            self.counts.retransmitted += 1
            self._outbox.append((outgoing.datagram, outgoing.source))
            return
        self._apply(outgoing, Stimulus.SILENCE, now)
        if outgoing.state is Sending.AWAITED:
            self._schedule(outgoing, max(now, outgoing.began + self._non_lifetime))
            return
        self.counts.timeouts += 1
        events.append(Failed(outgoing, PeerSilent(now - outgoing.began)))

    def _replied(self, message: Message, source: Source, now: float) -> list[Event]:
        """Take in an acknowledgement or a reset."""
        outgoing = self._by_id.get((source, message.message_id))
        if outgoing is None:
            return []
        outgoing.peer.heard = now
        if message.type == Type.RST:
            if message.code == 0 and self._apply(outgoing, Stimulus.RESET, now):
                return [Failed(outgoing, ResetByPeer())]
        elif not outgoing.confirmable:
            return []
        elif message.code == 0:
            if not outgoing.is_request:
                self._apply(outgoing, Stimulus.CONFIRMED, now)
                return [Confirmed(outgoing)]
            self._apply(outgoing, Stimulus.ACK, now)
            self._schedule(outgoing, now + self._lifetime)
        elif (
            message.code >= 64
            and outgoing.is_request
            and message.token == outgoing.message.token
            and self._apply(outgoing, Stimulus.RESPONSE, now)
        ):
            return [Answer(outgoing, message)]
        return []

    def _responded(self, incoming: Incoming, message: Message, now: float) -> list[Event]:
        """Take in a response that is a message of its own."""
        incoming.state = Receiving.SETTLED
        incoming.message = None
        outgoing = self._by_token.get((incoming.source, message.token))
        events: list[Event] = []
        head = _RST
        if outgoing is not None:
            wanted = self._apply(outgoing, Stimulus.RESPONSE, now)
            if wanted or (outgoing.keep and outgoing.state is Sending.DONE):
                events.append(Answer(outgoing, message))
                head = _ACK
        reply = _EMPTY.pack(head, 0, incoming.message_id)
        if incoming.confirmable:
            self._store(incoming.peer, incoming, reply)
        if incoming.confirmable or head == _RST:
            self._outbox.append((reply, incoming.source))
        return events

    def _forget_token(self, outgoing: Outgoing) -> None:
        key = (outgoing.source, outgoing.message.token)
        if self._by_token.get(key) is outgoing:
            del self._by_token[key]

    def _take_id(self, peer: Peer, expires: float) -> int:
        # The common counter goes on too: a peer that is forgotten and comes back begins there.
        self._next_id = (self._next_id + 1) & 0xFFFF
        return peer.ids.take(expires)

    def _post(self, datagram: bytes, source: Source, now: float, delay: float) -> None:
        if delay > 0:
            postponed = _Postponed(datagram, source, now + delay)
            self._schedule(postponed, now + delay)
        else:
            self._outbox.append((datagram, source))

    def _schedule(self, item: Incoming | Outgoing | Peer | _Postponed, due: float) -> None:
        item.due = due
        self._timer_number += 1
        heappush(self._timers, (due, self._timer_number, item))
        if len(self._timers) > self._most_timers:
            # Timers are not taken out when they become void; here the void ones go.
            self._timers = [timer for timer in self._timers if timer[2].due == timer[0]]
            heapify(self._timers)
            self._most_timers = max(1024, 2 * len(self._timers))

    # --- what is remembered of others ---

    def _admit(self, source: Source, now: float) -> Peer | None:
        """Begin to know a peer; None where all that are known are busy."""
        if len(self._peers) >= self._limits.max_peers and not self._drop_idle_peer():
            return None
        peer = self._peers[source] = self._latest = Peer(source, self._next_id, now)
        if self._sweep_at is None:
            self._sweep_at = now + self._lifetime
        return peer

    def _drop_idle_peer(self) -> bool:
        for _ in range(min(IDLE_PEERS_TRIED, len(self._peers))):
            source, peer = next(iter(self._peers.items()))
            if peer.idle:
                self.counts.forgotten += len(peer.received)
                self._drop(peer)
                return True
            self._peers.move_to_end(source)
        self._latest = None
        return False

    def _drop(self, peer: Peer) -> None:
        self._exchanges -= len(peer.received)
        self._stored -= peer.stored
        peer.due = None
        del self._peers[peer.source]

    def _sweep(self, now: float) -> None:
        """Forget the peers silent for a whole lifetime, towards which no message ID is in use."""
        waiting = []
        for source, peer in self._peers.items():
            if peer.heard + self._lifetime > now:
                break
            waiting.append((source, peer))
        for source, peer in waiting:
            if peer.idle and peer.ids.expires <= now:
                self._drop(peer)
            else:
                self._peers.move_to_end(source)
                peer.heard = now
        self._latest = None
        oldest = next(iter(self._peers.values()), None)
        # A second at least between two sweeps, however close together peers fell silent.
        self._sweep_at = None if oldest is None else max(oldest.heard + self._lifetime, now + 1)

    def _remember(self, peer: Peer, incoming: Incoming, now: float) -> None:
        received = peer.received
        while received:
            oldest = next(iter(received.values()))
            if oldest.expires > now:
                break
            if oldest.state is not Receiving.SETTLED:
                # Answered later than anybody waits; out of the way of those behind it.
                oldest.expires = now + self._lifetime
                received.move_to_end(oldest.message_id)
                continue
            self._forget(peer, oldest)
        received[incoming.message_id] = incoming
        self._exchanges += 1
        if self._exchanges > self._limits.max_exchanges:
            over_share = len(received) * len(self._peers) > self._limits.max_exchanges
            self._give_up_oldest(peer, over_share)

    def _store(self, peer: Peer, incoming: Incoming, reply: bytes) -> None:
        """Keep what a duplicate of *incoming* is answered with."""
        if peer.received.get(incoming.message_id) is not incoming:
            return
        grown = len(reply) - len(incoming.reply or b"")
        incoming.reply = reply
        peer.stored += grown
        self._stored += grown
        limit = self._limits.max_exchange_bytes
        while self._stored > limit:
            if not self._give_up_oldest(peer, peer.stored * len(self._peers) > limit):
                break

    def _give_up_oldest(self, peer: Peer, over_share: bool) -> bool:
        """Forget one message early: of *peer*, or of the one that was silent for longest."""
        candidates = [peer]
        if not over_share:
            candidates = [known for known, _ in zip(self._peers.values(), range(8), strict=False)]
            candidates.append(peer)
        for candidate in candidates:
            for incoming in candidate.received.values():
                if incoming.state is Receiving.SETTLED:
                    self._forget(candidate, incoming)
                    self.counts.forgotten += 1
                    return True
        return False

    def _forget(self, peer: Peer, incoming: Incoming) -> None:
        if peer.received.get(incoming.message_id) is incoming:
            del peer.received[incoming.message_id]
            self._exchanges -= 1
            stored = len(incoming.reply or b"")
            peer.stored -= stored
            self._stored -= stored


_EMPTY = Struct(">BBH")
_RESPONSE, _PENDING, _PIGGYBACKED = Step.RESPONSE, Receiving.PENDING, Type.ACK
_ACK = 0x40 | Type.ACK << 4
_RST = 0x40 | Type.RST << 4
