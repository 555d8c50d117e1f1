"""Tests for :mod:`twisted_net.coap.settings`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.coap.settings import CoapClientSettings, CoapLimits

PEER = ("192.0.2.1", 5683)
OTHER = ("192.0.2.2", 5683)


class CoapLimitsTests(SynchronousTestCase):
    """:class:`CoapLimits` holds to RFC 7252 §4.8."""

    def test_derived(self) -> None:
        """The times that follow from the defaults are those of §4.8.2."""
        limits = CoapLimits()
        self.assertEqual(
            (limits.max_transmit_span, limits.max_transmit_wait, limits.exchange_lifetime),
            (45, 93, 247),
        )

    def test_block_size(self) -> None:
        """A block has one of seven sizes."""
        self.assertEqual(CoapLimits(block_size=64).block_size, 64)
        with self.assertRaises(ValueError):
            CoapLimits(block_size=100)


class CoapClientSettingsTests(SynchronousTestCase):
    """:class:`CoapClientSettings` are checked."""

    def test_block_size(self) -> None:
        """A block has one of seven sizes."""
        with self.assertRaises(ValueError):
            CoapClientSettings(block_size=100)
