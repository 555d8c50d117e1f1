"""Answer queue of one connection: answers leave in the order of their lines."""

from __future__ import annotations

from collections import deque

from twisted_net.commands.cancellations import Cancellable


class PendingAnswer:
    """
    The answer to one line, which is there or is waited for.

    :ivar answer: a line of JSON, or None while its command runs.
    :ivar command: what is cancelled if the answer is not wanted any more.
    :ivar taken: whether it has left the queue, to be written.
    """

    __slots__ = ("answer", "command", "taken")

    def __init__(self, answer: bytes | None = None) -> None:
        self.answer = answer
        self.command: Cancellable | None = None
        self.taken = False


class AnswerQueue:
    """
    Answers that wait for one before them.

    A connection has one from the first command that waits until all answers have left, so that
    answers which are there at once cost no queue.
    """

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending: deque[PendingAnswer] = deque()

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def due(self) -> bool:
        """Whether the oldest answer is there."""
        return bool(self._pending) and self._pending[0].answer is not None

    @property
    def last(self) -> PendingAnswer:
        """The answer that leaves last of those that are in the queue now; it is not empty."""
        return self._pending[-1]

    def append(self, pending: PendingAnswer) -> None:
        """Put an answer behind all others."""
        self._pending.append(pending)

    def take_due(self) -> list[bytes]:
        """Take out the oldest answers, up to the first that is waited for."""
        answers: list[bytes] = []
        pending = self._pending
        while pending and (answer := pending[0].answer) is not None:
            answers.append(answer)
            pending.popleft().taken = True
        return answers

    def running(self) -> list[Cancellable]:
        """Return the commands that run, oldest first."""
        return [
            pending.command
            for pending in self._pending
            if pending.command is not None and pending.answer is None
        ]
