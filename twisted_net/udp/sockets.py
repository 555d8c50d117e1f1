"""UDP sockets: adopting those opened by others, buffers, kernel drops, scoped addresses."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys

from twisted.internet.error import CannotListenError

from twisted_net.net.addresses import Source
from twisted_net.twisted_internals import systemd_sockets
from twisted_net.udp.socket_spec import InheritedSocket, SystemdSocket

# Linux's names; Python lacks the first. The option is an array of unsigned integers, the ninth of
# which counts the datagrams that the kernel has dropped at this socket: the number of SO_RXQ_OVFL,
# but available at any time and at no cost per datagram (socket(7), linux/sock_diag.h).
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("9I")
_DROPS = 8


def adopt_socket(origin: InheritedSocket | SystemdSocket) -> socket.socket:
    """
    Return a non-blocking duplicate of a socket that is open already.

    The original descriptor stays open, so that it can be adopted again, but child processes do
    not inherit it. While no process reads it, the kernel buffers incoming datagrams.

    :raises CannotListenError: if there is no such descriptor, or it is not a bound UDP socket.
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
            _check_is_bound_udp(taken)
            # Reading a blocking socket would block the reactor until a datagram arrives.
            taken.setblocking(False)
            os.set_inheritable(descriptor, False)
        except OSError:
            taken.close()
            raise
    except OSError as error:
        raise CannotListenError(None, str(origin), error) from error
    return taken


def _descriptor(origin: InheritedSocket | SystemdSocket) -> int:
    if isinstance(origin, InheritedSocket):
        return origin.descriptor
    passed = systemd_sockets()
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


def _check_is_bound_udp(sock: socket.socket) -> None:
    if sock.type != socket.SOCK_DGRAM or sock.family not in (socket.AF_INET, socket.AF_INET6):
        raise OSError(errno.EPROTOTYPE, "it is not a UDP socket")
    if not sock.getsockname()[1]:
        raise OSError(errno.EINVAL, "it is not bound to a port")


# Linux's IP_MULTICAST_ALL (ip(7)) and IPV6_MULTICAST_ALL, which Python lacks. A socket of IPv6 may
# have clients of IPv4, and takes both.
_MULTICAST_ALL = ((socket.IPPROTO_IP, 49), (socket.IPPROTO_IPV6, 29))


def enable_reuse_port(sock: socket.socket) -> None:
    """
    Allow other processes of the same user to bind the same port with the same option.

    :raises OSError: if the system has no ``SO_REUSEPORT``.
    """
    option = getattr(socket, "SO_REUSEPORT", None)
    if option is None:
        raise OSError(errno.ENOPROTOOPT, "this system has no SO_REUSEPORT")
    sock.setsockopt(socket.SOL_SOCKET, option, 1)


def receive_own_groups(sock: socket.socket) -> None:
    """
    Receive no multicast datagrams but those of groups that this very socket has joined.

    Else Linux delivers those of every group that any program of the machine has joined to each
    socket that is bound to the port and to no address. A server would take them for its own
    unicast requests, and answer them twice and at once (RFC 7252 §8.1). IPv6 has the option since
    Linux 4.20; other systems deliver nothing of the kind.
    """
    if sys.platform != "linux":
        return
    for level, option in _MULTICAST_ALL:
        with contextlib.suppress(OSError):
            sock.setsockopt(level, option, 0)


def set_receive_buffer(sock: socket.socket, size: int) -> int:
    """
    Request a receive buffer of *size* bytes, and return the size that the kernel granted.

    Both sizes are without the kernel's own overhead: Linux reserves and reports twice as much
    (socket(7)). Linux grants at most ``net.core.rmem_max``; other systems may refuse the call, and
    the buffer then stays as it was.
    """
    return _set_buffer(sock, socket.SO_RCVBUF, size)


def set_send_buffer(sock: socket.socket, size: int) -> int:
    """Request a send buffer likewise; Linux grants at most ``net.core.wmem_max``."""
    return _set_buffer(sock, socket.SO_SNDBUF, size)


def _set_buffer(sock: socket.socket, option: int, size: int) -> int:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, option, size)
    granted = sock.getsockopt(socket.SOL_SOCKET, option)
    return granted // 2 if sys.platform == "linux" else granted


def kernel_drops(sock: socket.socket) -> int:
    """
    Return how many datagrams the kernel has dropped at this socket, modulo 2**32.

    The usual cause is a full receive buffer. Always 0 where the kernel does not report it; Linux
    does since 4.12.
    """
    if sys.platform != "linux":
        return 0
    try:
        packed = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
    except OSError:
        return 0
    return _MEMINFO.unpack(packed)[_DROPS] if len(packed) == _MEMINFO.size else 0


def socket_address(address: Source) -> tuple[str, int] | tuple[str, int, int, int]:
    """
    Return an address as the socket module takes it: it ignores a scope within the host.

    :param address: a numeric host, with ``%eth0`` or ``%2`` where IPv6 needs a scope, and a port.
    :raises OSError: for a scope that does not exist.
    """
    host, port = address
    host, percent, scope = host.partition("%")
    if not percent:
        return address
    return host, port, 0, int(scope) if scope.isdigit() else socket.if_nametoindex(scope)


def canonical_host(host: str) -> str:
    """
    Return a numeric host as the kernel writes it where it is the source of a datagram.

    An IPv6 address has several spellings (RFC 5952), and its scope a name and a number.

    :raises OSError: for a scope that does not exist.
    """
    if ":" not in host:
        return host
    address, percent, scope = host.partition("%")
    text = socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, address))
    if percent:
        text += f"%{scope if scope.isdigit() else socket.if_nametoindex(scope)}"
    return text


def scoped_source(address: tuple[str, int, int, int]) -> Source:
    """Return an IPv6 socket address as a source, with its scope, if any, in the host."""
    host, port, _flow, scope = address
    return (f"{host}%{scope}" if scope else host, port)
