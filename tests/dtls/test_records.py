"""Tests of :mod:`twisted_net.dtls.records`."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.dtls.records import (
    MAX_RECORDS,
    first_records,
    pack_records,
    protected_records,
)

VERSION = b"\xfe\xfd"


def record(kind: int, epoch: int, payload: bytes) -> bytes:
    """Return a record."""
    header = bytes((kind,)) + VERSION + epoch.to_bytes(2, "big") + bytes(6)
    return header + len(payload).to_bytes(2, "big") + payload


class PackTests(SynchronousTestCase):
    """:func:`pack_records`."""

    @given(st.lists(st.integers(0, 300), max_size=20), st.integers(256, 600))
    def test_all_within_mtu(self, sizes: list[int], mtu: int) -> None:
        """Datagrams hold whole records, in order, up to the MTU, and no two would fit in one."""
        records = [record(22, 0, bytes(size)) for size in sizes]
        datagrams = pack_records(b"".join(records), mtu)
        self.assertEqual(b"".join(datagrams), b"".join(records))
        ends = {sum(map(len, records[:i])) for i in range(len(records) + 1)}
        at = 0
        for datagram in datagrams:
            self.assertTrue(datagram)
            at += len(datagram)
            self.assertIn(at, ends)
            if len(datagram) > mtu:
                self.assertIn(datagram, records)
        for one, other in pairwise(datagrams):
            first = 13 + int.from_bytes(other[11:13], "big")
            self.assertGreater(len(one) + first, mtu)


class FirstRecordsTests(SynchronousTestCase):
    """:func:`first_records`."""

    def test_limit(self) -> None:
        """As many records as the limit says are left, and none behind them."""
        records = [record(22, 0, bytes(i)) for i in range(MAX_RECORDS + 2)]
        limit = b"".join(records[:MAX_RECORDS])
        for count in range(len(records) + 1):
            datagram = b"".join(records[:count])
            self.assertEqual(first_records(datagram), datagram[: len(limit)])
            self.assertEqual(first_records(datagram + b"\x16"), (datagram + b"\x16")[: len(limit)])

    def test_cut(self) -> None:
        """A record that is cut is left as it is."""
        whole = record(23, 1, b"abc")
        for end in range(len(whole)):
            self.assertEqual(first_records(whole[:end]), whole[:end])


class ProtectedRecordsTests(SynchronousTestCase):
    """:func:`protected_records`."""

    def test_all(self) -> None:
        """A datagram of encrypted records is left as it is."""
        for datagram in (record(23, 1, b"a"), record(22, 1, b"a") + record(23, 1, b"b")):
            self.assertEqual(protected_records(datagram), datagram)

    def test_some(self) -> None:
        """Of a flight that begins unencrypted, the encrypted end is left."""
        finished = record(22, 1, b"finished")
        flight = record(22, 0, b"key") + record(20, 0, b"\1") + finished + record(21, 0, b"x")
        self.assertEqual(protected_records(flight), finished)

    def test_none(self) -> None:
        """Of unencrypted records, halves of records and nothing, nothing is left."""
        whole = record(23, 1, b"abc")
        for datagram in (b"", b"\0", record(21, 0, b"\2\x28"), whole[:-1], whole[:13]):
            self.assertEqual(protected_records(datagram), b"")

    def test_many(self) -> None:
        """Records behind as many as the limit says are not looked at."""
        encrypted = [record(23, 1, b"%d" % i) for i in range(MAX_RECORDS + 1)]
        limit = b"".join(encrypted[:MAX_RECORDS])
        self.assertEqual(protected_records(limit), limit)
        self.assertEqual(protected_records(limit + encrypted[-1]), limit)
        self.assertEqual(protected_records(record(21, 0, b"") * MAX_RECORDS + limit), b"")

    @given(st.binary(max_size=100))
    def test_anything(self, noise: bytes) -> None:
        """Whatever comes, what is left is a part of it."""
        self.assertLessEqual(len(protected_records(noise)), len(noise))
