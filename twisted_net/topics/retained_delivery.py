"""Delivery of retained messages to new subscribers, some in each turn of the reactor."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from twisted_net.topics.messages import Subscriber, TopicMessage
from twisted_net.turns.steps import Pacing

if TYPE_CHECKING:
    from twisted_net.topics.registry import Topics

AT_ONCE = 64
"""Topics that are looked at for new subscribers in one turn of the reactor."""

_Job = tuple[Subscriber, str]


class RetainedDelivery:
    """
    New subscribers that are yet to get retained messages, in turns.

    There is one for each subscription at most, so that who subscribes again and again waits for no
    more than one who does so once.
    """

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._jobs: OrderedDict[_Job, tuple[Iterator[TopicMessage | None], int]] = OrderedDict()
        self._running = False

    def __len__(self) -> int:
        """Return how many subscriptions have messages to come."""
        return len(self._jobs)

    def add(
        self,
        subscriber: Subscriber,
        pattern: str,
        levels: Sequence[str],
        last_id: int,
        pacing: Pacing | None,
    ) -> None:
        """
        Send the first messages of a pattern, and the others later.

        :param last_id: that of the last message: later ones were sent as they came.
        :param pacing: spreads the others over turns; None sends all at once.
        """
        job = subscriber, pattern
        self._jobs[job] = self._topics.retained.matching(levels), last_id
        if pacing is None:
            for _ in self._steps():
                pass
        elif self._give(job) and not self._running:
            self._running = True
            pacing(self._steps())

    def _steps(self) -> Iterator[int]:
        try:
            while self._jobs:
                job = next(iter(self._jobs))
                if self._give(job):
                    # The others have their turns first.
                    self._jobs.move_to_end(job)
                yield 1
        finally:
            self._running = False

    def _give(self, job: _Job) -> bool:
        """Send some messages; return whether there may be more."""
        subscriber, pattern = job
        messages, last_id = self._jobs[job]
        # It may have left, or unsubscribed.
        if self._topics.holds(subscriber, pattern):
            for _ in range(AT_ONCE):
                try:
                    message = next(messages)
                except StopIteration:
                    break
                if message is not None and message.id <= last_id:
                    subscriber.take(message.as_retained())
            else:
                return True
        del self._jobs[job]
        return False
