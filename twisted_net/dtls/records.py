"""DTLS records (RFC 6347 §4.1): packed into datagrams, and the encrypted ones of a datagram."""

from __future__ import annotations

RECORD_HEADER = 13
"""Bytes of a record header: type, version, epoch, sequence number, length (RFC 6347 §4.1)."""

OVERHEAD = 64
"""Bytes by which a record exceeds its plaintext, at most."""

MAX_PLAINTEXT = 16_384
"""Longest plaintext of a record, in bytes (RFC 6347 §4.1)."""


def pack_records(records: bytes, mtu: int) -> list[bytes]:
    """
    Pack consecutive records into as few datagrams as the MTU allows, in order.

    A record over the MTU gets a datagram of its own.
    """
    if len(records) <= mtu:
        return [records] if records else []
    datagrams: list[bytes] = []
    start = end = 0
    while end < len(records):
        length = RECORD_HEADER + int.from_bytes(records[end + 11 : end + 13], "big")
        if end > start and end + length - start > mtu:
            datagrams.append(records[start:end])
            start = end
        end += length
    datagrams.append(records[start:])
    return datagrams


def protected_records(datagram: bytes) -> bytes:
    """
    Return the encrypted records of a datagram; unencrypted ones can be forged.

    A client that did not receive the end of the handshake repeats its own last flight, which has
    records of both kinds in one datagram.
    """
    kept = b""
    start = 0
    while start + RECORD_HEADER < len(datagram):
        end = start + RECORD_HEADER + int.from_bytes(datagram[start + 11 : start + 13], "big")
        if datagram[start + 3 : start + 5] != b"\0\0" and end <= len(datagram):
            if not start and end == len(datagram):
                return datagram
            kept += datagram[start:end]
        start = end
    return kept
