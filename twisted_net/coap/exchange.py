"""What is held of a CoAP message under way, in the tables of its states (RFC 7252 §4, §5.2)."""

from __future__ import annotations

from collections import OrderedDict, deque
from enum import IntEnum
from typing import TypeAlias

from twisted_net.coap.codec import Message, Type
from twisted_net.coap.message_ids import MessageIds
from twisted_net.errors import CoapError
from twisted_net.net.addresses import Source


class Sending(IntEnum):
    """Where a message of ours stands."""

    QUEUED = 0
    UNACKNOWLEDGED = 1
    PROBING = 2
    AWAITED = 3
    DONE = 4
    FAILED = 5


class Stimulus(IntEnum):
    """What can happen to a message of ours."""

    TURN = 0
    TURN_NON = 1
    ACK = 2
    CONFIRMED = 3
    RESPONSE = 4
    RESET = 5
    SILENCE = 6
    CANCEL = 7


_QUEUED, _UNACKNOWLEDGED, _PROBING = Sending.QUEUED, Sending.UNACKNOWLEDGED, Sending.PROBING
_AWAITED, _DONE, _FAILED = Sending.AWAITED, Sending.DONE, Sending.FAILED

# RFC 7252 figures 2 to 6. ACK is an empty acknowledgement of a request, CONFIRMED one of anything
# else; a response may overtake the acknowledgement (§5.2.2). A non-confirmable request probes:
# it has its place in NSTART for as long as PROBING_RATE says, then its response is awaited still.
NEXT_SENDING = {
    (_QUEUED, Stimulus.TURN): _UNACKNOWLEDGED,
    (_QUEUED, Stimulus.TURN_NON): _PROBING,
    (_QUEUED, Stimulus.CANCEL): _FAILED,
    (_UNACKNOWLEDGED, Stimulus.ACK): _AWAITED,
    (_UNACKNOWLEDGED, Stimulus.CONFIRMED): _DONE,
    (_UNACKNOWLEDGED, Stimulus.RESPONSE): _DONE,
    (_UNACKNOWLEDGED, Stimulus.RESET): _FAILED,
    (_UNACKNOWLEDGED, Stimulus.SILENCE): _FAILED,
    (_UNACKNOWLEDGED, Stimulus.CANCEL): _FAILED,
    (_PROBING, Stimulus.RESPONSE): _DONE,
    (_PROBING, Stimulus.RESET): _FAILED,
    (_PROBING, Stimulus.SILENCE): _AWAITED,
    (_PROBING, Stimulus.CANCEL): _FAILED,
    (_AWAITED, Stimulus.RESPONSE): _DONE,
    (_AWAITED, Stimulus.SILENCE): _FAILED,
    (_AWAITED, Stimulus.CANCEL): _FAILED,
}
IN_FLIGHT = (_UNACKNOWLEDGED, _PROBING)


class Receiving(IntEnum):
    """Where a message that was received stands."""

    PENDING = 0
    PROMISED = 1
    SETTLED = 2


class Step(IntEnum):
    """What can happen to a request that was received."""

    ACK_DUE = 0
    RESPONSE = 1


# A response before the acknowledgement is due travels in it; later it is a message of its own.
NEXT_RECEIVING = {
    (Receiving.PENDING, Step.ACK_DUE): Receiving.PROMISED,
    (Receiving.PENDING, Step.RESPONSE): Receiving.SETTLED,
    (Receiving.PROMISED, Step.RESPONSE): Receiving.SETTLED,
}

# Here as elsewhere: to look a member up on its enum takes 70 ns in Python 3.11, and each message
# asked for a dozen.
_CON, _PENDING = Type.CON, Receiving.PENDING


class Incoming:
    """
    A request that was received, once; it is answered by :meth:`MessageLayer.send_response`.

    :ivar source: who asks.
    :ivar message: the request; None once it is answered.
    :ivar size: bytes of the datagram.
    :ivar group: whether it came to a group of many receivers.
    """

    __slots__ = (
        "confirmable",
        "digest",
        "due",
        "expires",
        "group",
        "message",
        "message_id",
        "peer",
        "reply",
        "size",
        "source",
        "state",
        "token",
    )

    def __init__(
        self, peer: Peer, message: Message, digest: int, size: int, expires: float, group: bool
    ) -> None:
        self.peer = peer
        self.source = peer.source
        self.message: Message | None = message
        self.message_id = message.message_id
        self.token = message.token
        self.confirmable = message.type == _CON
        self.digest = digest
        self.size = size
        self.expires = expires
        self.group = group
        self.state = _PENDING
        # What a duplicate is answered with; None for silence.
        self.reply: bytes | None = None
        self.due: float | None = None


class Outgoing:
    """
    A message of ours whose fate is followed.

    :ivar source: to whom.
    :ivar keep: whether further responses with its token are wanted, as from an observation.
    """

    __slots__ = (
        "attempts",
        "began",
        "chance",
        "confirmable",
        "datagram",
        "deadline",
        "due",
        "is_request",
        "keep",
        "message",
        "peer",
        "source",
        "state",
        "timeout",
    )

    def __init__(self, peer: Peer, message: Message, chance: float, keep: bool) -> None:
        self.peer = peer
        self.source = peer.source
        self.message = message
        self.chance = chance
        self.keep = keep
        self.is_request = message.is_request
        self.confirmable = message.type == _CON
        self.state = _QUEUED
        self.attempts = 0
        self.timeout = 0.0
        self.began = 0.0
        self.deadline = 0.0
        self.due: float | None = None
        self.datagram = b""


class Answer:
    """The response to a request of ours; for one that is kept, each of them."""

    __slots__ = ("message", "outgoing")

    def __init__(self, outgoing: Outgoing, message: Message) -> None:
        self.outgoing = outgoing
        self.message = message


class Confirmed:
    """The peer has got a message of ours that was no request."""

    __slots__ = ("outgoing",)

    def __init__(self, outgoing: Outgoing) -> None:
        self.outgoing = outgoing


class Failed:
    """A message of ours came to nothing; *error* says why."""

    __slots__ = ("error", "outgoing")

    def __init__(self, outgoing: Outgoing, error: CoapError) -> None:
        self.outgoing = outgoing
        self.error = error


Event: TypeAlias = Incoming | Answer | Confirmed | Failed


class Peer:
    """What is known of one other endpoint."""

    __slots__ = (
        "active",
        "due",
        "heard",
        "ids",
        "pending",
        "queue",
        "received",
        "source",
        "stored",
    )

    def __init__(self, source: Source, first_id: int, now: float) -> None:
        self.source = source
        self.heard = now
        self.ids = MessageIds(first_id)
        # Ours in flight, of which NSTART allows so many, and those that wait for their turn.
        self.active = 0
        self.queue: deque[Outgoing] = deque()
        # Ordered, not a plain dict: that one needs ever longer to find its oldest key.
        self.received: OrderedDict[int, Incoming] = OrderedDict()
        self.pending = 0
        self.stored = 0
        self.due: float | None = None

    @property
    def idle(self) -> bool:
        """Whether it may be forgotten without an exchange being cut short."""
        return not (self.active or self.queue or self.pending)
