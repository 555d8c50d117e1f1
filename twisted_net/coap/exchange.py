"""State of a CoAP message that is sent or answered, and of its peer (RFC 7252 §4, §5.2)."""

from __future__ import annotations

from collections import OrderedDict, deque
from enum import IntEnum
from typing import TypeAlias

from twisted_net.coap.codec import CoapMessage, Type, unknown_critical_option
from twisted_net.coap.errors import UnknownOption
from twisted_net.coap.message_ids import MessageIds
from twisted_net.errors import CoapError
from twisted_net.net.addresses import Source


class OutgoingState(IntEnum):
    """State of a message that this endpoint sends."""

    QUEUED = 0
    UNACKNOWLEDGED = 1
    PROBING = 2
    AWAITING_RESPONSE = 3
    DONE = 4
    FAILED = 5


class OutgoingTrigger(IntEnum):
    """What changes the state of a message that this endpoint sends."""

    TRANSMIT_CON = 0
    TRANSMIT_NON = 1
    REQUEST_ACKNOWLEDGED = 2
    ACKNOWLEDGED = 3
    RESPONSE = 4
    RESET = 5
    TIMEOUT = 6
    CANCEL = 7


_QUEUED, _UNACKNOWLEDGED = OutgoingState.QUEUED, OutgoingState.UNACKNOWLEDGED
_PROBING, _AWAITING_RESPONSE = OutgoingState.PROBING, OutgoingState.AWAITING_RESPONSE
_DONE, _FAILED = OutgoingState.DONE, OutgoingState.FAILED

# RFC 7252 figures 2 to 6. REQUEST_ACKNOWLEDGED is an empty acknowledgement of a request, after
# which the response is still to come; ACKNOWLEDGED is that of any other message. A response may
# overtake the acknowledgement (§5.2.2). A non-confirmable request is PROBING, and counts towards
# NSTART, for as long as PROBING_RATE says; after that its response is still awaited.
OUTGOING_TRANSITIONS = {
    (_QUEUED, OutgoingTrigger.TRANSMIT_CON): _UNACKNOWLEDGED,
    (_QUEUED, OutgoingTrigger.TRANSMIT_NON): _PROBING,
    (_QUEUED, OutgoingTrigger.CANCEL): _FAILED,
    (_UNACKNOWLEDGED, OutgoingTrigger.REQUEST_ACKNOWLEDGED): _AWAITING_RESPONSE,
    (_UNACKNOWLEDGED, OutgoingTrigger.ACKNOWLEDGED): _DONE,
    (_UNACKNOWLEDGED, OutgoingTrigger.RESPONSE): _DONE,
    (_UNACKNOWLEDGED, OutgoingTrigger.RESET): _FAILED,
    (_UNACKNOWLEDGED, OutgoingTrigger.TIMEOUT): _FAILED,
    (_UNACKNOWLEDGED, OutgoingTrigger.CANCEL): _FAILED,
    (_PROBING, OutgoingTrigger.RESPONSE): _DONE,
    (_PROBING, OutgoingTrigger.RESET): _FAILED,
    (_PROBING, OutgoingTrigger.TIMEOUT): _AWAITING_RESPONSE,
    (_PROBING, OutgoingTrigger.CANCEL): _FAILED,
    (_AWAITING_RESPONSE, OutgoingTrigger.RESPONSE): _DONE,
    (_AWAITING_RESPONSE, OutgoingTrigger.TIMEOUT): _FAILED,
    (_AWAITING_RESPONSE, OutgoingTrigger.CANCEL): _FAILED,
}
OUTSTANDING = (_UNACKNOWLEDGED, _PROBING)
"""States of outstanding interactions, which NSTART limits (RFC 7252 §4.7)."""


class IncomingState(IntEnum):
    """State of a message that was received."""

    PENDING = 0
    ACKNOWLEDGED = 1
    SETTLED = 2


class IncomingTrigger(IntEnum):
    """What changes the state of a request that was received."""

    ACK_DUE = 0
    RESPONSE = 1


# A response that is ready before the acknowledgement is due is piggybacked on it (§5.2.1); a later
# one is a message of its own (§5.2.2).
INCOMING_TRANSITIONS = {
    (IncomingState.PENDING, IncomingTrigger.ACK_DUE): IncomingState.ACKNOWLEDGED,
    (IncomingState.PENDING, IncomingTrigger.RESPONSE): IncomingState.SETTLED,
    (IncomingState.ACKNOWLEDGED, IncomingTrigger.RESPONSE): IncomingState.SETTLED,
}

OUTGOING_BYTES = 1000
"""Bytes of a message of ours, beside its payload."""

# Bound once, here and elsewhere: looking a member up on its enum takes 70 ns in Python 3.11, and
# each message needs a dozen.
_CON, _PENDING = Type.CON, IncomingState.PENDING


class IncomingMessage:
    """
    A received request or separate response, kept to recognise its duplicates.

    As an event it is a request, to be answered by :meth:`MessageLayer.send_response`.

    :ivar source: address of the sender.
    :ivar message: the request; None once it is answered.
    :ivar digest: hash of the datagram, by which a duplicate is told from a reused message ID.
    :ivar size: bytes of the datagram.
    :ivar expires: end of the lifetime of its message ID.
    :ivar group: whether it was sent to a multicast group.
    :ivar reply: the datagram that answers a duplicate; None for no answer.
    :ivar due: when its acknowledgement is due, or None.
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
        self,
        peer: Peer,
        message: CoapMessage,
        digest: int,
        size: int,
        expires: float,
        group: bool,
    ) -> None:
        self.peer = peer
        self.source = peer.source
        self.message: CoapMessage | None = message
        self.message_id = message.message_id
        self.token = message.token
        self.confirmable = message.type == _CON
        self.digest = digest
        self.size = size
        self.expires = expires
        self.group = group
        self.state = _PENDING
        self.reply: bytes | None = None
        self.due: float | None = None


class OutgoingMessage:
    """
    A request, separate response or notification of ours, tracked until its outcome is known.

    :ivar source: address of the receiver.
    :ivar observing: whether further responses with its token are expected (RFC 7641).
    :ivar retransmissions: how often it was sent again.
    :ivar timeout: seconds from its last transmission to the next.
    :ivar sent_at: time of its first transmission; until then, of its queueing.
    :ivar size: bytes that it takes in memory.
    :ivar due: when its timeout ends, or None.
    """

    __slots__ = (
        "chance",
        "confirmable",
        "datagram",
        "due",
        "is_request",
        "message",
        "observing",
        "peer",
        "retransmissions",
        "sent_at",
        "size",
        "source",
        "state",
        "timeout",
    )

    def __init__(
        self, peer: Peer, message: CoapMessage, now: float, chance: float, observing: bool
    ) -> None:
        self.peer = peer
        self.source = peer.source
        self.message = message
        self.chance = chance
        self.observing = observing
        self.is_request = message.is_request
        self.confirmable = message.type == _CON
        self.state = _QUEUED
        self.retransmissions = 0
        self.timeout = 0.0
        self.sent_at = now
        self.due: float | None = None
        self.datagram = b""
        # The payload is in the message and in the datagram.
        self.size = OUTGOING_BYTES + 2 * len(message.payload)


MAX_DELAYED = 1000
"""Responses to multicast requests that wait for their leisure at one time; others are dropped."""

MAX_DELAYED_BYTES = 1_048_576
"""Bytes of these: some 900 of the longest that fit into a datagram."""


class DelayedDatagram:
    """A response to a multicast request, sent after its leisure (RFC 7252 §8.2)."""

    __slots__ = ("datagram", "due", "source")

    def __init__(self, datagram: bytes, source: Source, due: float) -> None:
        self.datagram = datagram
        self.source = source
        self.due: float | None = due


class ResponseReceived:
    """Event: a response to a request of ours; one event for each notification if it observes."""

    __slots__ = ("message", "outgoing")

    def __init__(self, outgoing: OutgoingMessage, message: CoapMessage) -> None:
        self.outgoing = outgoing
        self.message = message


def response_event(
    outgoing: OutgoingMessage, message: CoapMessage
) -> ResponseReceived | MessageFailed:
    """Return the event of a response; one with an unknown critical option fails (§5.4.1)."""
    unknown = unknown_critical_option(message.options)
    if unknown is None:
        return ResponseReceived(outgoing, message)
    return MessageFailed(outgoing, UnknownOption(unknown))


class MessageAcknowledged:
    """Event: the peer has acknowledged a message of ours that is not a request."""

    __slots__ = ("outgoing",)

    def __init__(self, outgoing: OutgoingMessage) -> None:
        self.outgoing = outgoing


class MessageFailed:
    """Event: a message of ours was reset or timed out; *error* says which."""

    __slots__ = ("error", "outgoing")

    def __init__(self, outgoing: OutgoingMessage, error: CoapError) -> None:
        self.outgoing = outgoing
        self.error = error


Event: TypeAlias = IncomingMessage | ResponseReceived | MessageAcknowledged | MessageFailed


class Peer:
    """
    State kept for one remote endpoint.

    :ivar last_received: time of the last message from it.
    :ivar outstanding: messages of ours that NSTART counts.
    :ivar queue: messages of ours that wait for NSTART or a message ID.
    :ivar received: its messages within their lifetime, by message ID, oldest first.
    :ivar unanswered: its requests that are not answered yet.
    :ivar reply_bytes: bytes of the replies kept for duplicates.
    :ivar outgoing_bytes: bytes of the messages of ours whose outcome is not known.
    :ivar counted: bytes of all that is kept for it, as they were last counted.
    :ivar due: when the next message ID is free, if messages wait for it.
    """

    __slots__ = (
        "counted",
        "due",
        "ids",
        "last_received",
        "outgoing_bytes",
        "outstanding",
        "queue",
        "received",
        "reply_bytes",
        "source",
        "unanswered",
    )

    def __init__(self, source: Source, first_id: int, now: float) -> None:
        self.source = source
        self.last_received = now
        self.ids = MessageIds(first_id)
        self.outstanding = 0
        self.queue: deque[OutgoingMessage] = deque()
        # Ordered, not a plain dict: finding the oldest key of that one takes longer and longer.
        self.received: OrderedDict[int, IncomingMessage] = OrderedDict()
        self.unanswered = 0
        self.reply_bytes = 0
        self.outgoing_bytes = 0
        self.counted = 0
        self.due: float | None = None

    def unqueue(self, outgoing: OutgoingMessage) -> None:
        """Remove a message of ours that waits."""
        # Who cancels many begins with the last: a search for each took 1.2 s for 10,000.
        if self.queue[-1] is outgoing:
            self.queue.pop()
        else:
            self.queue.remove(outgoing)

    @property
    def idle(self) -> bool:
        """Whether it can be evicted without cutting an exchange short."""
        return not (self.outstanding or self.queue or self.unanswered)
