"""The terms of one call of a client, which every layer below it goes by."""

from __future__ import annotations

from attrs import define

from twisted_net.http.bodies import Deadline
from twisted_net.http.cache.rules import Rules
from twisted_net.http.retry.settings import RetryPolicy


@define(eq=False)
class Call:
    """
    What holds for one call of a client, however many requests it takes, and what came of it.

    :param deadline: the end of its time; None for no limit.
    :param retry: its policy.
    :param rules: of its cache; None to leave the cache alone.
    :param max_body: most bytes of a body, as sent and as decompressed.
    :param whole: read each body to its end inside the attempt, so that one that breaks off is
        asked for again.
    :param idempotent: whether its requests may be repeated; None to go by the policy.
    :ivar url: of the last request.
    :ivar sent: when the attempt began that brought the last response, by the time of day; None
        before there is one.
    :ivar attempts: made over the network, in all.
    :ivar age: of the answer in seconds, where it came from the cache; None where it did not.
    """

    deadline: Deadline | None
    retry: RetryPolicy
    rules: Rules | None
    max_body: int
    whole: bool = False
    idempotent: bool | None = None
    url: str = ""
    sent: float | None = None
    attempts: int = 0
    age: float | None = None
