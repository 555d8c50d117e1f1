"""The session's retransmissions, by a clock that is not its own."""

from __future__ import annotations

from typing import Any, cast

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.dtls.session import (
    MAX_RETRANSMISSION,
    DtlsSession,
    client_context,
    server_context,
)
from twisted_net.dtls.settings import DtlsClientSettings


class SteppedConnection:
    """A handshake under way, whose OpenSSL reads a wall clock that was set back by an hour."""

    def set_ciphertext_mtu(self, mtu: int) -> None:
        """Do nothing."""

    def set_connect_state(self) -> None:
        """Do nothing."""

    def do_handshake(self) -> None:
        """Wait for the peer."""
        raise SSL.WantReadError

    def DTLSv1_handle_timeout(self) -> bool:
        """Retransmit nothing, as it is too early."""
        return False

    def DTLSv1_get_timeout(self) -> float:
        """Return the seconds until the next retransmission, by that clock."""
        return 3600.5


class RetransmissionTests(SynchronousTestCase):
    """:class:`DtlsSession` with a clock that was set back."""

    def test_step_back(self) -> None:
        """It looks again after the longest timeout that there is, and not an hour later."""
        session = DtlsSession(cast(Any, SteppedConnection()), 1200)
        session.connect("", 7.0)
        self.assertEqual(session.due, 7.0 + MAX_RETRANSMISSION)
        session.retransmit(67.0)
        self.assertEqual(session.due, 67.0 + MAX_RETRANSMISSION)


class ContextTests(SynchronousTestCase):
    """The contexts of both sides."""

    def test_buffers(self) -> None:
        """OpenSSL releases the buffers of idle sessions."""
        for context in (server_context(), client_context(DtlsClientSettings())):
            # The call returns the modes that are set.
            self.assertTrue(context.set_mode(0) & SSL.MODE_RELEASE_BUFFERS)
