"""Tests for :mod:`twisted_net.coap.errors`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

import twisted_net.coap
from twisted_net.coap import errors
from twisted_net.errors import CoapError

INTERNAL = {"MalformedMessage", "TooManyOptions"}
"""Of messages that a server or a client has received, and that it ignores or rejects."""


class PublicTests(SynchronousTestCase):
    """What a call raises can be imported from the folder that is public."""

    def test_named(self) -> None:
        """Each error that the caller of a client may get is one of the folder's names."""
        raised = {
            name
            for name, kind in vars(errors).items()
            if isinstance(kind, type) and issubclass(kind, CoapError) and kind is not CoapError
        }
        missing = {name for name in raised - INTERNAL if not hasattr(twisted_net.coap, name)}
        self.assertEqual(missing, set())
