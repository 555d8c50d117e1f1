"""Listens on a Unix socket that has its permissions from its first moment on."""

# mypy: disallow-untyped-calls=False
# Few of the methods that the port derives from have types.

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.posixbase import PosixReactorBase
from twisted.python.failure import Failure
from typing_extensions import override

from twisted_net.tcp.transport import FairPort


class UnixPort(FairPort, unix.Port):
    """
    A listening Unix socket.

    Twisted's own makes the file with whatever permissions the umask leaves, and changes them a
    moment later; who connects in between is in. This one has them when the file appears.

    A file that a server left behind which is no more is replaced; one at which somebody listens,
    or which is no socket, is left alone, and the address is taken. When the port closes its file
    is removed, unless another has taken its name.
    """

    socket: Any  # a socket; Twisted's annotations have none here
    fileno: Any  # its method
    _file: tuple[int, int]

    @override
    def startListening(self) -> None:
        assert self.factory is not None
        try:
            self.socket = self._bind()
        except OSError as error:
            raise CannotListenError(None, os.fsdecode(self._bindPath), error) from error
        self.factory.doStart()
        self.fileno = self.socket.fileno
        self.connected = True
        self.startReading()

    @override
    def connectionLost(self, reason: Failure) -> None:
        # Privileges may have been shed since; the file is then replaced at the next start.
        with contextlib.suppress(OSError):
            if _identity(self._bindPath) == self._file:
                os.unlink(self._bindPath)
        tcp.Port.connectionLost(self, reason)

    def _bind(self) -> socket.socket:
        sock: socket.socket = self.createInternetSocket()
        try:
            with _locked(os.path.dirname(self._bindPath) or b"."), _umask(0o777 & ~self.mode):
                _remove_left_behind(self._bindPath)
                sock.bind(self._bindPath)
                sock.listen(self.backlog)
                self._file = _identity(self._bindPath)
        except OSError:
            sock.close()
            raise
        return sock


def listen_unix(
    reactor: Any,  # Any: the half dozen interfaces of a reactor
    path: str,
    factory: IProtocolFactory,
    backlog: int,
    mode: int,
) -> IListeningPort:
    """
    Listen on a Unix socket; on a reactor that is a fake for tests, as that does it.

    :param mode: the permissions of its file, such as 0o660; to connect takes the right to write.
    :raises CannotListenError: where the file cannot be had.
    """
    if not isinstance(reactor, PosixReactorBase):
        listening: IListeningPort = reactor.listenUNIX(path, factory, backlog, mode)
        return listening
    port = UnixPort(os.fsencode(path), factory, backlog, mode, reactor)
    port.startListening()
    return port


def _remove_left_behind(path: bytes) -> None:
    """Remove a socket at which nobody listens."""
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
            return  # a queue that is full, another kind of socket: somebody's


def _identity(path: bytes) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def _locked(directory: bytes) -> Iterator[None]:
    """Keep out another server that starts now, and would remove what we have just made."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _umask(mask: int) -> Iterator[None]:
    previous = os.umask(mask)
    try:
        yield
    finally:
        os.umask(previous)
