"""DTLS records (RFC 6347 §4.1): packed into datagrams, and the encrypted ones of a datagram."""

from __future__ import annotations

RECORD_HEADER = 13
"""Bytes of a record header: type, version, epoch, sequence number, length (RFC 6347 §4.1)."""

OVERHEAD = 64
"""Bytes by which a record exceeds its plaintext, at most."""

MAX_PLAINTEXT = 16_384
"""Longest plaintext of a record, in bytes (RFC 6347 §4.1)."""

MAX_RECORDS = 8
"""
Records of a datagram that are read; those behind them are lost, as a datagram may be.

The longest flight of a handshake has six. Each record is a message of its own to what is above: a
datagram of 16 KiB has room for more than 400.
"""


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


def first_records(datagram: bytes) -> bytes:
    """Return the first :data:`MAX_RECORDS` records of a datagram, the last of them maybe cut."""
    end = 0
    for _ in range(MAX_RECORDS):
        if end + RECORD_HEADER > len(datagram):
            return datagram
        end += RECORD_HEADER + int.from_bytes(datagram[end + 11 : end + 13], "big")
    return datagram[:end]


def protected_records(datagram: bytes) -> bytes:
    """
    Return the encrypted ones of the first :data:`MAX_RECORDS` records of a datagram.

    Unencrypted ones can be forged. A client that did not receive the end of the handshake repeats
    its own last flight, which has records of both kinds in one datagram.
    """
    datagram = first_records(datagram)
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
