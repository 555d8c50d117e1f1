"""Error queue of a UDP socket: which destinations refused datagrams, by ICMP (Linux, ip(7))."""

from __future__ import annotations

import errno
import socket
import struct
import sys

from twisted_net.net.addresses import Source
from twisted_net.udp.sockets import scoped_source

ERRORS_AT_ONCE = 64
"""Errors read in one turn of the reactor; the others follow in the next."""

# Linux's names, which Python lacks (linux/in.h, linux/in6.h, linux/errqueue.h).
_IP_RECVERR = 11
_IPV6_RECVERR = 25
_MSG_ERRQUEUE = 0x2000
_ERROR = struct.Struct("=I")  # ee_errno, the first member of struct sock_extended_err


def enable_error_queue(sock: socket.socket) -> bool:
    """
    Have the kernel queue ICMP errors of an unconnected socket; return whether it does.

    Without it, such a socket does not hear that nobody listens at a destination.
    """
    if sys.platform != "linux":
        return False
    six = sock.family == socket.AF_INET6
    try:
        if six:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    except OSError:
        return False
    return True


def take_refusals(sock: socket.socket) -> list[Source] | None:
    """
    Remove errors from the queue, and return the destinations at which nobody listens.

    Other errors, such as of a network that is away, may pass: they are removed, too.

    :return: None if the queue was empty.
    """
    refused: list[Source] = []
    for number in range(ERRORS_AT_ONCE):
        try:
            _, ancillary, _, address = sock.recvmsg(1, 512, _MSG_ERRQUEUE)
        except OSError:
            return refused if number else None
        for level, _, data in ancillary:
            if level not in (socket.IPPROTO_IP, socket.IPPROTO_IPV6) or len(data) < _ERROR.size:
                continue
            if _ERROR.unpack_from(data)[0] == errno.ECONNREFUSED and address:
                six = len(address) == 4
                refused.append(scoped_source(address) if six else (address[0], address[1]))
    return refused
