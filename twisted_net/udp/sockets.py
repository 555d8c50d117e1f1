"""Sockets for datagrams: bound here or handed over by others, their buffers, their addresses."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys

from twisted.internet.error import CannotListenError
from twisted.python.systemd import ListenFDs

from twisted_net.net.addresses import Source
from twisted_net.udp.socket_spec import Activated, Inherited

# Linux's names; Python has none for the first. An array of unsigned integers, of which the
# ninth is what the kernel dropped at this socket since it was made: the number that SO_RXQ_OVFL
# puts beside datagrams, but told at any time, and at no price for each datagram (socket(7),
# linux/sock_diag.h).
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("9I")
_DROPS = 8


def passed_by_systemd() -> ListenFDs:
    """
    Give the sockets that systemd has passed to this process (sd_listen_fds(3)).

    Twisted takes them out of the environment as soon as anything imports its endpoints, and keeps
    them for its own ``systemd:`` endpoints alone; TCP and UDP are counted together.
    """
    from twisted.internet.endpoints import _SystemdParser

    return _SystemdParser._sddaemon


def take_over(origin: Inherited | Activated) -> socket.socket:
    """
    Give a socket that was opened before, as a descriptor of our own that does not block.

    The descriptor that was handed over stays as it is, so that it can be taken over again; child
    processes do not get it. While nobody reads it, the kernel keeps what comes in.

    :raises CannotListenError: where there is no such descriptor, or it is no bound UDP socket.
    """
    try:
        descriptor = _descriptor(origin)
        ours = os.dup(descriptor)
        try:
            taken = socket.socket(fileno=ours)
        except OSError:
            os.close(ours)
            raise
        try:
            _check_is_ours(taken)
            # A reactor that reads a socket which blocks would stand still until a datagram comes.
            taken.setblocking(False)
            os.set_inheritable(descriptor, False)
        except OSError:
            taken.close()
            raise
    except OSError as error:
        raise CannotListenError(None, str(origin), error) from error
    return taken


def _descriptor(origin: Inherited | Activated) -> int:
    if isinstance(origin, Inherited):
        return origin.descriptor
    passed = passed_by_systemd()
    descriptors, names = passed.inheritedDescriptors(), passed.inheritedNamedDescriptors()
    if not descriptors:
        raise OSError(errno.ENOENT, "systemd has passed no sockets to this process")
    which = origin.which
    if isinstance(which, int):
        if which >= len(descriptors):
            raise OSError(
                errno.ENOENT, f"systemd has passed {len(descriptors)} sockets, counted from 0"
            )
        return descriptors[which]
    if which not in names:
        raise OSError(errno.ENOENT, f"systemd has passed {', '.join(names)}, not {which}")
    return names[which]


def _check_is_ours(sock: socket.socket) -> None:
    if sock.type != socket.SOCK_DGRAM or sock.family not in (socket.AF_INET, socket.AF_INET6):
        raise OSError(errno.EPROTOTYPE, "it is not a UDP socket")
    if not sock.getsockname()[1]:
        raise OSError(errno.EINVAL, "it is bound to no port")


def share_port(sock: socket.socket) -> None:
    """
    Let other processes of the same user bind the same port too, if they ask for it likewise.

    :raises OSError: where the system has no such thing.
    """
    option = getattr(socket, "SO_REUSEPORT", None)
    if option is None:
        raise OSError(errno.ENOPROTOOPT, "this system shares no ports")
    sock.setsockopt(socket.SOL_SOCKET, option, 1)


def ask_receive_buffer(sock: socket.socket, size: int) -> int:
    """
    Ask the kernel for a receive buffer of *size* bytes, and give what it granted.

    Both count as the kernel does when it is asked, its bookkeeping left out: Linux reserves, and
    reports, twice that (socket(7)). Linux grants at most ``net.core.rmem_max``; others may refuse
    the call, and the buffer stays as it was.
    """
    return _ask_buffer(sock, socket.SO_RCVBUF, size)


def ask_send_buffer(sock: socket.socket, size: int) -> int:
    """Do the same for the send buffer, which ``net.core.wmem_max`` bounds."""
    return _ask_buffer(sock, socket.SO_SNDBUF, size)


def _ask_buffer(sock: socket.socket, option: int, size: int) -> int:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, option, size)
    granted = sock.getsockopt(socket.SOL_SOCKET, option)
    return granted // 2 if sys.platform == "linux" else granted


def kernel_drops(sock: socket.socket) -> int:
    """
    Tell how many datagrams the kernel has dropped at this socket, modulo 2**32.

    Most find no room in the receive buffer. Always 0 where the kernel does not tell, which Linux
    does since 4.12.
    """
    if sys.platform != "linux":
        return 0
    try:
        told = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
    except OSError:
        return 0
    return _MEMINFO.unpack(told)[_DROPS] if len(told) == _MEMINFO.size else 0


def socket_address(address: Source) -> tuple[str, int] | tuple[str, int, int, int]:
    """
    Give what the socket's calls take for an address: they pass over a scope within the host.

    :param address: a numeric host, with ``%eth0`` or ``%2`` where IPv6 needs it, and a port.
    :raises OSError: for a scope that there is not.
    """
    host, port = address
    host, percent, scope = host.partition("%")
    if not percent:
        return address
    return host, port, 0, int(scope) if scope.isdigit() else socket.if_nametoindex(scope)


def scoped_source(address: tuple[str, int, int, int]) -> Source:
    """Write an IPv6 address as a source, its scope in its host where it has one."""
    host, port, _flow, scope = address
    return (f"{host}%{scope}" if scope else host, port)
