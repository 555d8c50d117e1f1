"""Settings of topics: their bounds, and what happens to those who read slowly."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from twisted_net.config.record import Record
from twisted_net.errors import BadTopic
from twisted_net.topics.tree import check_pattern, split_topic

WhenSlow = Literal["drop_oldest", "drop_newest", "disconnect"]

BROADCAST = "broadcast"
"""
The topic of BROADCAST, in the permissions of users: to subscribe is to receive, to publish to send.

It has no subscribers and no messages of its own: PUBLISH and SUBSCRIBE refuse it.
"""

PRESENCE = "@presence"
"""
First level of the topics of presence, which take the permission of the command PRESENCE.

The service alone publishes to them, and a pattern reaches them only if it begins with this level.
"""


def is_presence(pattern: str) -> bool:
    """Whether a topic or pattern is of presence."""
    return pattern == PRESENCE or pattern.startswith(f"{PRESENCE}.")


class TopicSettings(Record, frozen=True):
    """
    The bounds of topics, ``[topics]``.

    - ``max_subscriptions``: above it SUBSCRIBE is refused with ``subscription_limit``. With
      wildcards few clients need as many; a flood of SUBSCRIBE ends here.
    - ``max_subscriptions_in_all``: the same for all clients together.
    - ``max_subscription_bytes``: the same for their memory. A subscription costs a quarter KiB, and
      0.4 KiB for each level of its pattern that no other has: 100,000 of the usual three levels,
      no two alike, take 145 MB.
    - ``max_topic``, ``max_levels``: a longer topic or pattern is refused with ``bad_topic``. MQTT
      brokers and NATS are used with a good deal less.
    - ``when_slow``: what happens when ``max_queue`` bytes wait for a subscriber, unless it chose
      otherwise: its oldest messages are dropped, as the newest describe the present state best;
      or the newest are dropped, so that it gets an unbroken beginning; or it is disconnected, so
      that it knows that it has missed messages.
    - ``retain``: the last message of each topic that matches one of these patterns is kept for
      later subscribers, and is the state of the topic over CoAP.
    - ``max_retained``, ``max_retained_bytes``: at a bound RETAIN is refused with
      ``retained_limit``; what is to be retained by its topic is delivered, and not retained.
    - ``file``: retained messages survive a restart in this SQLite file, which one process may use.
    - ``max_queue``: beside these, the transport holds up to 80 KiB for each.
    """

    max_subscriptions: Annotated[int, Meta(ge=1, description="subscriptions per client")] = 1000
    max_subscriptions_in_all: Annotated[
        int, Meta(ge=1, description="subscriptions of all clients together")
    ] = 100_000
    max_subscription_bytes: Annotated[
        int, Meta(ge=1_048_576, description="bytes of the subscriptions of all clients together")
    ] = 167_772_160
    max_topic: Annotated[
        int, Meta(ge=1, le=65_536, description="longest topic or pattern, in bytes")
    ] = 256
    max_levels: Annotated[
        int,
        Meta(
            ge=1, le=32, description="limit of the levels of a topic or pattern, separated by dots"
        ),
    ] = 8
    when_slow: Annotated[
        WhenSlow, Meta(description="what to do if a subscriber reads too slowly")
    ] = "drop_oldest"
    retain: Annotated[
        tuple[str, ...], Meta(description="patterns of topics whose last message is retained")
    ] = ()
    max_retained: Annotated[
        int, Meta(ge=0, description="topics whose last message is retained")
    ] = 10_000
    max_retained_bytes: Annotated[
        int, Meta(ge=0, description="bytes of all retained messages together")
    ] = 33_554_432
    file: (
        Annotated[str, Meta(min_length=1, description="SQLite file that keeps retained messages")]
        | None
    ) = None
    max_queue: Annotated[
        int, Meta(ge=4096, description="limit of bytes of messages queued for one subscriber")
    ] = 1_048_576

    def __post_init__(self) -> None:
        super().__post_init__()
        for pattern in self.retain:
            try:
                check_pattern(split_topic(pattern, self.max_topic, self.max_levels))
            except BadTopic as error:
                raise ValueError(f"TopicSettings.retain: {pattern!r}: {error}") from None
