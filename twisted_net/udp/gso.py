"""
UDP generic segmentation offload (GSO): several answers to one client in one system call.

``UDP_SEGMENT`` of udp(7), Linux 4.18. The kernel's send path runs once instead of once per
datagram, and the network card segments where it can. The receiver gets ordinary datagrams; a
packet capture on the sending machine shows them as one.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator, Sequence

from twisted_net.net.addresses import Source

KernelAddress = tuple[str, int] | tuple[str, int, int, int]
"""An IPv4 or IPv6 address as the socket module returns it."""

QueuedAnswer = tuple[bytes, Source, KernelAddress]
"""A datagram and its destination, as the protocol and as the kernel write it."""

MAX_SEGMENTS = 64
"""Datagrams per call, at most (Linux's ``UDP_MAX_SEGMENTS``; 128 since 6.9)."""

# Linux's names (linux/udp.h), which Python lacks.
_SOL_UDP = 17
_UDP_SEGMENT = 103
_SIZE = struct.Struct("=H")


def runs(answers: Sequence[QueuedAnswer]) -> Iterator[tuple[int, int]]:
    """
    Find the runs that one call can send: consecutive answers of one size to one peer.

    A run has at least two answers. Empty answers are in none, as no segment has 0 bytes.

    :return: the index of the first, and of the one after the last, of each run.
    """
    start = 0
    peer: KernelAddress | None = None
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


def supports_gso(sock: socket.socket) -> bool:
    """Whether the kernel supports GSO; one that does not would send one long datagram."""
    if sys.platform != "linux":
        return False
    try:
        sock.getsockopt(_SOL_UDP, _UDP_SEGMENT)
    except OSError:
        return False
    return True


def send_segmented(sock: socket.socket, run: Sequence[QueuedAnswer]) -> bool:
    """
    Send a run of answers in one call; the kernel accepts all of them or none.

    It accepts none if its buffer has no room for all, if one is longer than the path MTU, or if
    the route does not support GSO (IPsec, for example). Each answer may then be sent on its own,
    which also tells its error from those of the others.

    :param run: found by :func:`runs`; at most :data:`MAX_SEGMENTS` answers.
    :return: whether they were sent.
    """
    size = _SIZE.pack(len(run[0][0]))
    try:
        sock.sendmsg(
            [datagram for datagram, _, _ in run], [(_SOL_UDP, _UDP_SEGMENT, size)], 0, run[0][2]
        )
    except OSError:
        return False
    return True
