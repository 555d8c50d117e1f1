"""Answers leave in the order in which they were put in, none before one that is waited for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.tcp.answer_queue import AnswerQueue, PendingAnswer


class AnswerQueueTests(SynchronousTestCase):
    """:class:`AnswerQueue` holds back what is there behind what is not."""

    def setUp(self) -> None:
        self.queue = AnswerQueue()

    def append(self, answer: bytes | None) -> PendingAnswer:
        """Put in an answer, or the place of one that is waited for."""
        pending = PendingAnswer(answer)
        self.queue.append(pending)
        return pending

    def test_empty(self) -> None:
        """An empty queue has nothing due."""
        self.assertEqual((len(self.queue), self.queue.due, self.queue.take_due()), (0, False, []))

    def test_up_to_the_first_waited_for(self) -> None:
        """What is before the first answer that is waited for leaves; the rest stays."""
        first, waited = self.append(b"1"), self.append(None)
        self.append(b"3")
        self.assertTrue(self.queue.due)
        self.assertEqual(self.queue.take_due(), [b"1"])
        self.assertEqual((len(self.queue), self.queue.due), (2, False))
        self.assertEqual((first.taken, waited.taken), (True, False))
        self.assertEqual(self.queue.take_due(), [])
        waited.answer = b"2"
        self.assertTrue(self.queue.due)
        self.assertEqual(self.queue.take_due(), [b"2", b"3"])
        self.assertTrue(waited.taken)

    def test_last(self) -> None:
        """The last one is the one that was put in last."""
        for answer in (None, b"2", b"3"):
            pending = self.append(answer)
            self.assertIs(self.queue.last, pending)

    def test_running(self) -> None:
        """The commands that run are those that are waited for, oldest first."""
        commands = [Deferred[None]() for _ in range(3)]
        for command, answer in zip(commands, (None, b"2", None), strict=True):
            self.append(answer).command = command
        self.append(b"at once")
        self.assertEqual(self.queue.running(), [commands[0], commands[2]])

    @given(st.permutations(range(6)), st.data())
    def test_any_order(self, order: list[int], data: st.DataObject) -> None:
        """In whatever order they are settled, and taken out, they leave in the order of lines."""
        self.queue = AnswerQueue()
        places = [self.append(None) for _ in order]
        left: list[bytes] = []
        for i in order:
            places[i].answer = b"%d" % i
            if data.draw(st.booleans()):
                left += self.queue.take_due()
        left += self.queue.take_due()
        self.assertEqual(left, [b"%d" % i for i in range(6)])
        self.assertEqual(len(self.queue), 0)
