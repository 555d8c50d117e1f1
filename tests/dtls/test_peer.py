"""Tests of :mod:`twisted_net.dtls.peer`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.dtls.peer import SecurePeer, credential_of, identity_of
from twisted_net.net.addresses import format_address


class SecurePeerTests(SynchronousTestCase):
    """:class:`SecurePeer`."""

    def test_address(self) -> None:
        """It serves as the address that it is."""
        peer = SecurePeer(("192.0.2.1", 5000), "ann")
        host, port = peer
        self.assertEqual((host, port, peer[0], len(peer)), ("192.0.2.1", 5000, "192.0.2.1", 2))
        self.assertEqual(format_address(*peer), "192.0.2.1:5000")

    def test_equal_to_itself_alone(self) -> None:
        """Two sessions of one address are two keys, and the address itself is a third."""
        one, other = SecurePeer(("192.0.2.1", 5000)), SecurePeer(("192.0.2.1", 5000))
        self.assertTrue(one == one and one != other)  # what is tested
        table: dict[tuple[str, int], int] = {one: 1, other: 2, ("192.0.2.1", 5000): 3}
        self.assertEqual([table[one], table[other], table["192.0.2.1", 5000]], [1, 2, 3])
        self.assertNotIn(SecurePeer(("192.0.2.1", 5000)), table)

    def test_identity(self) -> None:
        """Only a peer with a certificate is somebody."""
        address = ("192.0.2.1", 5000)
        self.assertEqual(identity_of(SecurePeer(address, "ann")), "ann")
        self.assertIsNone(identity_of(SecurePeer(address)))
        self.assertIsNone(identity_of(address))

    def test_credential(self) -> None:
        """It is known what proved who a peer is."""
        address = ("192.0.2.1", 5000)
        self.assertEqual(credential_of(SecurePeer(address, "ann")), "certificate")
        self.assertEqual(
            credential_of(SecurePeer(address, "a", "pre-shared key")), "pre-shared key"
        )
