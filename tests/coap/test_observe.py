"""Tests for :mod:`twisted_net.coap.observe`."""

from __future__ import annotations

from itertools import count
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.coap.observe import Observer, ObserverList

PEER = ("192.0.2.1", 5683)
OTHER = ("192.0.2.2", 5683)


class ObserverListTests(SynchronousTestCase):
    """:class:`ObserverList` knows whom to tell, and when (RFC 7641)."""

    def test_register(self) -> None:
        """An observation is found by its resource and by its peer."""
        observers = ObserverList(10, 10)
        first = observers.register("a", PEER, b"1", [])
        second = observers.register("a", OTHER, b"1", [])
        observers.register("b", OTHER, b"2", [])
        self.assertEqual(observers.of_resource("a"), [first, second])
        self.assertEqual(len(observers.of_peer(OTHER)), 2)
        self.assertEqual((len(observers), len(observers.all())), (3, 3))

    def test_again(self) -> None:
        """The same token of the same peer takes the place of the observation there was (§4.1)."""
        observers = ObserverList(1, 1)
        first = observers.register("a", PEER, b"1", [])
        second = observers.register("b", PEER, b"1", [])
        assert first is not None
        self.assertNotIn(first, observers)
        self.assertEqual((observers.of_resource("a"), observers.of_resource("b")), ([], [second]))
        observers.remove(first)
        self.assertEqual(len(observers), 1)

    def test_cancel(self) -> None:
        """What is cancelled is there no more, anywhere."""
        observers = ObserverList(10, 10)
        observers.register("a", PEER, b"1", [])
        observers.deregister(PEER, b"2")
        observers.deregister(PEER, b"1")
        self.assertEqual(
            (observers.of_resource("a"), observers.of_peer(PEER), len(observers)), ([], [], 0)
        )

    def test_nothing_is_left(self) -> None:
        """After the last observer neither resource nor peer takes room; none is told more."""
        observers = ObserverList(10, 10)
        observer = observers.register("a", PEER, b"1", [])
        assert observer is not None
        self.assertTrue(observers.is_observed("a"))
        self.assertTrue(observers.begin_notification(observer))
        self.assertFalse(observers.begin_notification(observer))
        observers.remove(observer)
        self.assertFalse(observers.end_notification(observer))
        self.assertFalse(observers.is_observed("a"))
        self.assertEqual((observers._resources, observers._per_peer), ({}, {}))

    def test_many_of_one_peer(self) -> None:
        """Each is removed without a look at the others, whatever the order."""
        observers = ObserverList(1000, 1000)
        for number in range(1000):
            observers.register("a", PEER, b"%d" % number, [])
        compared = []

        def equal(one: Observer, other: object) -> bool:
            compared.append(one)
            return one is other

        with patch.object(Observer, "__eq__", equal):
            for number in reversed(range(1000)):
                observers.deregister(PEER, b"%d" % number)
        self.assertEqual((len(observers), observers.of_peer(PEER)), (0, []))
        self.assertTrue(len(compared) <= 1000, len(compared))

    def test_limits(self) -> None:
        """Over a limit there is no observation."""
        observers = ObserverList(2, 1)
        self.assertIsNotNone(observers.register("a", PEER, b"1", []))
        self.assertIsNone(observers.register("a", PEER, b"2", []))
        self.assertIsNotNone(observers.register("a", OTHER, b"1", []))
        self.assertIsNone(observers.register("a", ("192.0.2.3", 1), b"1", []))

    def test_pace(self) -> None:
        """One notification is under way; what changes meanwhile is told once, after it."""
        observers = ObserverList(2, 1)
        observation = observers.register("a", PEER, b"1", [])
        assert observation is not None
        told = [observers.begin_notification(observation) for _ in range(3)]
        self.assertEqual(told, [True, False, False])
        self.assertTrue(observers.end_notification(observation))
        self.assertFalse(observers.end_notification(observation))
        self.assertTrue(observers.begin_notification(observation))
        observers.remove(observation)
        self.assertFalse(observers.end_notification(observation))

    def test_sequence(self) -> None:
        """Numbers go on from 2**24 - 1 to 0 (§3.4)."""
        observers = ObserverList(1, 1)
        observers._numbers = count(0xFFFFFF)
        numbers = [observers.next_number() for _ in range(2)]
        self.assertEqual(numbers, [0xFFFFFF, 0])
