"""A flood of connections waits while others are served."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Factory
from twisted.internet.tcp import Port
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.tcp.transport import ACCEPTS_PER_TURN, FairPort, FastPort
from twisted_net.tcp.unix import UnixPort


class FairPortTests(SynchronousTestCase):
    """:class:`FairPort`, and the ports that are one."""

    def test_number(self) -> None:
        """The number of connections of a turn is small, and stays so whatever Twisted wishes."""
        reactor: Any = object()  # Any: not used before the port listens
        ports = [
            FairPort(0, Factory(), reactor=reactor),
            FastPort(0, Factory(), reactor=reactor),
            UnixPort(b"/nowhere", Factory(), 50, 0o660, reactor),
        ]
        for port in ports:
            port.numberAccepts += 20
            self.assertEqual(port.numberAccepts, ACCEPTS_PER_TURN)

    def test_asked(self) -> None:
        """Twisted asks for the number, by this name, in each turn."""
        self.assertIn("numberAccepts", Port.doRead.__code__.co_names)
