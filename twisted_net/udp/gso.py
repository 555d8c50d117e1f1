"""
Answers that go to one client in one call, which the kernel cuts into datagrams.

Linux calls it segmentation: ``UDP_SEGMENT`` of udp(7), since 4.18. The way through the kernel is
gone once, not for each datagram, and the network card does the cutting where it can. Each datagram
is a datagram as ever to whom it goes to; a capture on the sending machine shows them as one.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator, Sequence

from twisted_net.net.addresses import Source

Peer = tuple[str, int] | tuple[str, int, int, int]
"""An address as the kernel gives it, of IPv4 or of IPv6."""

Answer = tuple[bytes, Source, Peer]
"""A datagram, and to whom it goes: as a protocol knows it, and as the kernel does."""

MOST_SEGMENTS = 64
"""Datagrams that Linux cuts from one call at most (``UDP_MAX_SEGMENTS``; 128 since 6.9)."""

# Linux's names (linux/udp.h), which Python has not.
_SOL_UDP = 17
_UDP_SEGMENT = 103
_SIZE = struct.Struct("=H")


def runs(answers: Sequence[Answer]) -> Iterator[tuple[int, int]]:
    """
    Find the answers in a row that one call can send: two or more of one size, to one peer.

    Empty ones are in none, as nothing is cut into pieces of no bytes.

    :return: the index of the first, and of the one after the last, of each run.
    """
    start = 0
    peer: Peer | None = None
    size: int | None = None
    for index, (datagram, _, to) in enumerate(answers):
        if to == peer and len(datagram) == size:
            continue
        if index - start > 1:
            yield start, index
        start = index
        peer = to
        size = len(datagram) or None
    if len(answers) - start > 1:
        yield start, len(answers)


def can_cut(sock: socket.socket) -> bool:
    """Tell whether the kernel knows of segmentation; one that does not would send one datagram."""
    if sys.platform != "linux":
        return False
    try:
        sock.getsockopt(_SOL_UDP, _UDP_SEGMENT)
    except OSError:
        return False
    return True


def send_run(sock: socket.socket, run: Sequence[Answer]) -> bool:
    """
    Send a run of answers in one call, where the kernel takes them so: all, or none.

    It takes none where its buffer has no room for all of them, where one is longer than a packet
    on their way may be, and where that way has something between that cannot do it, IPsec for
    one. Each may still be sent by itself then, and its error told from those of the others.

    :param run: one that :func:`runs` has found, of :data:`MOST_SEGMENTS` at most.
    """
    size = _SIZE.pack(len(run[0][0]))
    try:
        sock.sendmsg(
            [datagram for datagram, _, _ in run], [(_SOL_UDP, _UDP_SEGMENT, size)], 0, run[0][2]
        )
    except OSError:
        return False
    return True
