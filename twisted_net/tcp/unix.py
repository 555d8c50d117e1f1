"""Unix socket port: a listening socket that has its permissions from the moment it exists."""

# mypy: disallow-untyped-calls=False
# Few of the methods that the port derives from have types.

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.address import UNIXAddress
from twisted.internet.error import CannotListenError, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.posixbase import PosixReactorBase
from twisted.python.failure import Failure
from typing_extensions import override

from twisted_net.config.type_checks import check_arguments
from twisted_net.net.addresses import UNIX, unix_host
from twisted_net.net.files import locked
from twisted_net.net.reactor import AnyReactor, Reactor, full_reactor
from twisted_net.reasons import End
from twisted_net.tcp.fair_port import FairPort

_CREDENTIALS = struct.Struct("iII")
"""The ``struct ucred`` of unix(7): the process, the user and the group of the peer."""


class UnixPeer(UNIXAddress):
    """
    The address of a Unix socket's client, with the user of its process.

    :ivar host: what stands for its host, see :func:`~twisted_net.net.addresses.unix_host`.
    """

    def __init__(self, name: str | bytes | None, host: str) -> None:
        super().__init__(name)
        self.host = host


def host_of_peer(sock: socket.socket) -> str:
    """
    Return what stands for the host of a Unix socket's client.

    Linux says who connected, or created the pair of sockets, whatever it sends; no other system
    is asked.
    """
    if sys.platform != "linux":
        return UNIX
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return UNIX
    _, uid, _ = _CREDENTIALS.unpack(data)
    return unix_host(uid)


class UnixTransport(unix.Server):
    """
    An accepted connection of a Unix socket that takes no file descriptors, and knows its peer.

    Twisted's own receives those that a client sends beside its data, and logs and closes each;
    here the kernel drops them.
    """

    hostname: Any  # a UnixPeer from a port of ours; from another the name of the peer

    @override
    def getPeer(self) -> UNIXAddress:
        peer: UNIXAddress = self.hostname
        return peer if isinstance(peer, UnixPeer) else super().getPeer()

    @override
    def doRead(  # type: ignore[override]  # abortConnection's is of any form
        self,
    ) -> ConnectionLost | ConnectionDone | None:
        return tcp.Connection.doRead(self)


class UnixPort(FairPort, unix.Port):
    """
    A listening Unix socket.

    Twisted's own creates the file with the permissions that the umask leaves, and changes them
    afterwards; a client that connects in between is accepted. Here the file is created with them.

    The file of a server that has ended is replaced. One at which a server listens, or which is not
    a socket, is left alone, and listening fails as the address is in use. When the port closes, its
    file is removed, unless another file has its name by then.
    """

    socket: Any  # a socket; Twisted's annotations have none here
    fileno: Any  # its method
    transport = UnixTransport
    _file: tuple[int, int]  # device and inode of the file that was created

    def __init__(
        self, path: bytes, factory: IProtocolFactory, backlog: int, mode: int, reactor: Reactor
    ) -> None:
        super().__init__(path, factory, backlog, mode, reactor)
        self._path = path

    @override
    def startListening(self) -> None:
        assert self.factory is not None
        try:
            self.socket = self._bind()
        except OSError as error:
            raise CannotListenError(None, os.fsdecode(self._path), error) from error
        self.factory.doStart()
        self.fileno = self.socket.fileno
        self.connected = True
        self.startReading()

    @override
    def connectionLost(self, reason: Failure) -> None:
        # After privileges were dropped this may fail; the file is then replaced at the next start.
        with contextlib.suppress(OSError):
            if _identity(self._path) == self._file:
                os.unlink(self._path)
        self._release()
        tcp.Port.connectionLost(self, reason)  # not Unix's, which removes any file of this name

    @override
    def _connect(self, accepted: socket.socket, peer: Any) -> None:  # Any: as the kernel has it
        super()._connect(accepted, UnixPeer(peer or None, host_of_peer(accepted)))

    def _buildAddr(self, name: Any) -> UNIXAddress:  # Any: a UnixPeer, or as the kernel has it
        return name if isinstance(name, UnixPeer) else UNIXAddress(name)

    def _bind(self) -> socket.socket:
        sock: socket.socket = self.createInternetSocket()
        try:
            # Not to remove the socket that another server has just created.
            with locked(self._path + b"-lock"), _umask(0o777 & ~self.mode):
                _remove_stale_socket(self._path)
                sock.bind(self._path)
                sock.listen(self.backlog)
                self._file = _identity(self._path)
        except OSError:
            sock.close()
            raise
        return sock


@check_arguments
def listen_unix(
    reactor: AnyReactor,
    path: str,
    factory: IProtocolFactory,
    backlog: int,
    mode: int,
    refused: Callable[[End], object] | None = None,
) -> IListeningPort:
    """
    Listen on a Unix socket; with a fake reactor for tests, call its ``listenUNIX``.

    :param mode: the permissions of its file, such as 0o660; connecting requires write permission.
    :param refused: as of :func:`~twisted_net.tcp.transport.listen_tcp`.
    :raises CannotListenError: if the file cannot be created.
    """
    if not isinstance(reactor, PosixReactorBase):
        # The annotation of Twisted's interface demands a Factory, its code does not.
        return full_reactor(reactor).listenUNIX(path, factory, backlog, mode)  # type: ignore[arg-type]
    port = UnixPort(os.fsencode(path), factory, backlog, mode, reactor)
    port.refused = refused
    port.startListening()
    return port


def _remove_stale_socket(path: bytes) -> None:
    """Remove a socket at which no server listens."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            return  # a server with a full queue, or another kind of socket


def _identity(path: bytes) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def _umask(mask: int) -> Iterator[None]:
    previous = os.umask(mask)
    try:
        yield
    finally:
        os.umask(previous)
