"""Answer queue of one connection: answers leave in the order of their lines."""

from __future__ import annotations

from collections import deque

from twisted_net.commands.cancellations import Cancellable

CALL_BYTES = 3500
"""Bytes of a command that is waited for, beside its line: its handler, and what awaits it."""

ANSWER_BYTES = 150
"""Bytes of an answer that waits for one before it, beside its own."""


class PendingAnswer:
    """
    The answer to one line, which is there or is waited for.

    :ivar answer: a line of JSON, or None while its command runs.
    :ivar command: what is cancelled if the answer is not wanted any more.
    :ivar taken: whether it has left the queue, to be written.
    :ivar size: bytes that it keeps, once it is in the queue.
    """

    __slots__ = ("answer", "command", "size", "taken")

    def __init__(self, answer: bytes | None = None) -> None:
        self.answer = answer
        self.command: Cancellable | None = None
        self.size = 0
        self.taken = False


class AnswerQueue:
    """
    Answers that wait for one before them.

    A connection has one from the first command that waits until all answers have left, so that
    answers which are there at once cost no queue.

    :ivar size: bytes that all of them keep.
    """

    __slots__ = ("_pending", "size")

    def __init__(self) -> None:
        self._pending: deque[PendingAnswer] = deque()
        self.size = 0

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

    def append(self, pending: PendingAnswer, line: bytes = b"") -> None:
        """
        Put an answer behind all others.

        :param line: what is kept until the answer is there.
        """
        answer = pending.answer
        pending.size = ANSWER_BYTES + len(answer) if answer is not None else CALL_BYTES + len(line)
        self.size += pending.size
        self._pending.append(pending)

    def settle(self, pending: PendingAnswer) -> None:
        """Count an answer that was waited for, in place of its command."""
        if pending.size:  # else it is yet to be put in
            size = ANSWER_BYTES + len(pending.answer or b"")
            self.size += size - pending.size
            pending.size = size

    def take_due(self) -> list[bytes]:
        """Take out the oldest answers, up to the first that is waited for."""
        answers: list[bytes] = []
        pending = self._pending
        while pending and (answer := pending[0].answer) is not None:
            answers.append(answer)
            taken = pending.popleft()
            taken.taken = True
            self.size -= taken.size
        return answers

    def running(self) -> list[Cancellable]:
        """Return the commands that run, oldest first."""
        return [
            pending.command
            for pending in self._pending
            if pending.command is not None and pending.answer is None
        ]
