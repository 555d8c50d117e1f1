"""
Private names of Twisted that this package relies on, compared with the installed Twisted.

This is the only module that imports private names of Twisted, and of pyOpenSSL. For each use there
is a fallback:

- The fast transport (:mod:`twisted_net.tcp.transport`): the stock transport, and a warning.
- The port that accepts few connections per turn (:mod:`twisted_net.tcp.fair_port`): the stock
  port's way of accepting.
- TLS whose halves end one by one (:mod:`twisted_net.tcp.tls_transport`): Twisted's own, and a
  warning. Buffers of idle TLS connections: they are kept, and a warning.
- TLS of the HTTP client (:mod:`twisted_net.http.h1.tls_calls`): the methods of pyOpenSSL.
- Pre-shared keys (:mod:`twisted_net.dtls.psk_callbacks`): a mistake of the configuration.
- The quiet reactor (:mod:`twisted_net.quiet_reactor`): the stock epoll reactor, and a warning.
- The steady clock (:mod:`twisted_net.net.steady_clock`): the wall clock, and a warning.
- The turn watch (:mod:`twisted_net.ops.turn_watch`): how late calls from a thread are.
- What is wrong with a server's certificate: the error says only that it was not verified.
- systemd sockets: the environment.
- The observers of the log: a log that is not limited as a whole.
- The log file of ``twistd --logfile``: Twisted's own handler of SIGUSR1.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from selectors import BaseSelector, SelectorKey
from typing import Any

from twisted.logger import ILogObserver, globalLogPublisher
from twisted.python.logfile import LogFile
from twisted.python.systemd import ListenFDs


def changed(known: Iterable[tuple[type, str, str]]) -> list[str]:
    """
    Return the methods that are absent, or that use other names than they are known to use.

    A method that has gained or lost a state uses another set of attributes and globals. Comparing
    these is cheap, and works the same on every version of Python.

    :param known: a class, the name of a method, and the names that this method's code uses,
        separated by white space.
    :return: such as ``FileDescriptor.write``, in the order of *known*; empty where nothing has
        changed.
    """
    return [
        f"{owner.__name__}.{method}"
        for owner, method, names in known
        if names_used(owner, method) != set(names.split())
    ]


def names_used(owner: type, method: str) -> set[str] | None:
    """Return the attributes and globals that a method's code uses; None if there is no method."""
    code = getattr(getattr(owner, method, None), "__code__", None)
    if code is None:
        return None
    # Before Python 3.12 comprehensions are functions of their own (PEP 709).
    kinds = ("<listcomp>", "<setcomp>", "<dictcomp>")
    inner = [one.co_names for one in code.co_consts if getattr(one, "co_name", "") in kinds]
    return set(code.co_names).union(*inner)


# By class: the methods that FastTransport replaces or shares state with, and the names they use.
_FAST_TRANSPORT_METHODS = {
    "FileDescriptor": {
        "write": (
            "_dataMustBeBytes _maybePauseProducer _tempDataBuffer _tempDataLen _writeDisconnected "
            "append connected len startWriting"
        ),
        "writeSequence": (
            "_dataMustBeBytes _maybePauseProducer _tempDataBuffer _tempDataLen _writeDisconnected "
            "connected extend len startWriting"
        ),
        "doWrite": (
            "Exception SEND_LIMIT _closeWriteConnection _concatenate _postLoseConnection "
            "_tempDataBuffer _tempDataLen _writeDisconnected _writeDisconnecting dataBuffer "
            "disconnecting isinstance join lazyByteSlice len offset producer producerPaused "
            "resumeProducing stopWriting streamingProducer writeSomeData"
        ),
        "loseConnection": (
            "CONNECTION_DONE Failure _writeDisconnected connected connectionLost disconnecting "
            "failure main startWriting stopReading stopWriting"
        ),
        "loseWriteConnection": "_writeDisconnecting startWriting",
        "unregisterProducer": "connected disconnecting producer startWriting",
        "_maybePauseProducer": (
            "_isSendBufferFull pauseProducing producer producerPaused streamingProducer"
        ),
        "_isSendBufferFull": "_tempDataLen bufferSize dataBuffer len",
        "startWriting": "addWriter reactor",
        "stopWriting": "reactor removeWriter",
        "connectionLost": "connected disconnected producer stopProducing stopReading stopWriting",
    },
    "ConnectionMixin": {
        "write": "FileDescriptor TLS connected protocol write",
    },
    "Connection": {
        "doRead": (
            "CONNECTION_LOST EWOULDBLOCK OSError _dataReceived args bufferSize main recv socket"
        ),
        "_dataReceived": "CONNECTION_DONE dataReceived main protocol",
        "writeSomeData": (
            "CONNECTION_LOST ENOBUFS EWOULDBLOCK OSError SEND_LIMIT args main memoryview send "
            "socket untilConcludes"
        ),
        "abortConnection": (
            "ConnectionAborted Failure _aborting callLater connectionLost disconnected doRead "
            "doWrite error failure reactor stopReading stopWriting"
        ),
    },
    "PosixReactorBase": {
        "listenTCP": "Port startListening tcp",
    },
}

# What FairPort does in place of Twisted's ports, and the names that they use.
_ACCEPT_METHODS = {
    "doRead": (
        "BaseException NI_NUMERICHOST NI_NUMERICSERV _BuffersLogs _accept _buildAddr _logger "
        "_reservedFD buildProtocol close deferr enumerate factory getnameinfo len list log "
        "makeConnection max namespace numberAccepts observer platformType range reactor sessionno "
        "socket transport tuple"
    ),
    "_buildAddr": "_addressType",
}

# By class: the methods that TlsTransport replaces, calls or shares state with, and the names they
# use.
_TLS_METHODS = {
    "TLSMemoryBIOProtocol": {
        "dataReceived": (
            "_appSendBuffer _checkHandshakeStatus _flushReceiveBIO _handshakeDone _tlsConnection "
            "_unbufferPendingWrites bio_write"
        ),
        "makeConnection": (
            "Protocol ProtocolWrapper _appSendBuffer _checkHandshakeStatus _connectWrapped "
            "_creatorCallable _tlsConnection directlyProvides factory makeConnection providedBy "
            "registerProtocol"
        ),
        "_flushSendBIO": "WantReadError _tlsConnection bio_read transport write",
        "_bufferedWrite": "_appSendBuffer _producer append pauseProducing",
        "registerProducer": (
            "_ProducerMembrane _PullToPush _lostTLSConnection _producer registerProducer "
            "startStreaming stopProducing transport"
        ),
        "connectionLost": (
            "ProtocolWrapper _flushReceiveBIO _lostTLSConnection _reason _tlsConnection "
            "bio_shutdown connected connectionLost"
        ),
        "_flushReceiveBIO": (
            "Error Failure ProtocolWrapper WantReadError ZeroReturnError _aborted _flushSendBIO "
            "_lostTLSConnection _shutdownTLS _tlsConnection _tlsShutdownFinished dataReceived recv"
        ),
        "_shutdownTLS": "Error _flushSendBIO _tlsConnection loseConnection shutdown transport",
        "_tlsShutdownFinished": (
            "CONNECTION_LOST Failure _flushSendBIO _lostTLSConnection _reason _representsEOF "
            "loseConnection transport value"
        ),
        "loseConnection": (
            "_appSendBuffer _handshakeDone _producer _shutdownTLS abortConnection connected "
            "disconnecting"
        ),
        "abortConnection": "_aborted _shutdownTLS abortConnection disconnecting transport",
        "_write": (
            "Error Failure WantReadError _bufferedWrite _flushSendBIO _lostTLSConnection "
            "_tlsConnection _tlsShutdownFinished len send"
        ),
        "_unbufferPendingWrites": (
            "_appSendBuffer _producer _shutdownTLS _write disconnecting resumeProducing"
        ),
        "unregisterProducer": (
            "_PullToPush _appSendBuffer _producer _producerPaused _shutdownTLS disconnecting "
            "isinstance stopStreaming transport unregisterProducer"
        ),
    },
    "BufferingTLSTransport": {
        "__init__": "_AggregateSmallWrites __init__ _aggregator _clock super write",
        "loseConnection": "_aggregator flush loseConnection super",
        "connectionLost": "_NullAggregator _aggregator close connectionLost super write",
    },
}

# What the methods of pyOpenSSL's Connection must use, among other names, so that it can be given
# other buffers.
_TLS_BUFFERS = {
    "__init__": "BIO_new BIO_s_mem SSL_set_bio _from_ssl _into_ssl _ssl",
    "bio_read": "_from_ssl",
    "bio_shutdown": "_into_ssl",
    "bio_write": "_into_ssl",
}

# What these methods must use, so that OpenSSL can be called without them.
_TLS_CALLS = {
    "send": "SSL_write _raise_ssl_error _ssl",
    "recv": "SSL_read _raise_ssl_error _ssl",
    "bio_read": "BIO_read _from_ssl",
    "bio_write": "BIO_write _into_ssl",
    "_raise_ssl_error": "SSL_ERROR_WANT_READ SSL_get_error",
}

# The methods that QuietEPollReactor replaces or calls, and the names they use.
_EPOLL_REACTOR_METHODS = {
    "doPoll": (
        "EINTR KeyError OSError _doReadOrWrite _poller _selectables callWithLogger errno len log "
        "poll"
    ),
    "_doReadOrWrite": (
        "BaseException CONNECTION_DONE CONNECTION_LOST _NO_FILEDESC _POLL_DISCONNECTED _POLL_IN "
        "_POLL_OUT _disconnectSelectable _reads doRead doWrite err exc_info fileno log sys"
    ),
    "_disconnectSelectable": (
        "ConnectionDone Failure IHalfCloseableDescriptor __class__ connectionLost error failure "
        "get providedBy readConnectionLost removeReader removeWriter"
    ),
    "disconnectAll": "CONNECTION_LOST Failure _callWithLogger connectionLost main removeAll",
    "removeAll": "_continuousPolling _reads _removeAll _selectables _writes removeAll",
}

# The methods of all reactors' timers that must read the time by ``seconds`` alone, and the names
# they use.
_REACTOR_TIME_METHODS = {
    "ReactorBase": {
        "callLater": (
            "DelayedCall _cancelCallLater _moveCallLaterSooner _newTimedCalls append seconds"
        ),
        "timeout": "_insertNewDelayedCalls _pendingTimedCalls max min seconds time",
        "runUntilCurrent": (
            "_DEFAULT_DELAYED_CALL_LOGGING_HANDLER _cancellations _insertNewDelayedCalls "
            "_justStopped _log _pendingTimedCalls _threadCallHandler activate_delay args called "
            "cancelled creator delayed_time failuresHandled fireSystemEvent func heapify heappop "
            "heappush kw len seconds threadCallQueue time wakeUp"
        ),
        "_insertNewDelayedCalls": (
            "_cancellations _newTimedCalls _pendingTimedCalls activate_delay cancelled heappush"
        ),
    },
    "DelayedCall": {
        "reset": (
            "AlreadyCalled AlreadyCancelled called cancelled delayed_time error resetter seconds "
            "time"
        ),
        "delay": (
            "AlreadyCalled AlreadyCancelled activate_delay called cancelled delayed_time error "
            "resetter"
        ),
    },
    "AsyncioSelectorReactor": {
        "callLater": (
            "PosixReactorBase _asyncioEventloop _reschedule _scheduledAt callLater time timeout"
        ),
        "_reschedule": (
            "_asyncioEventloop _onTimer _scheduledAt _timerHandle call_at cancel time timeout"
        ),
        "_onTimer": "_reschedule _scheduledAt runUntilCurrent",
    },
}


def fast_transport_changes() -> list[str]:
    """Return what has changed in the methods that ``FastTransport`` relies on."""
    from twisted.internet import abstract, posixbase, tcp

    try:
        mixin: type = import_module("twisted.internet._newtls").ConnectionMixin
    except (ImportError, AttributeError):
        return ["ConnectionMixin"]
    owners = (abstract.FileDescriptor, mixin, tcp.Connection, posixbase.PosixReactorBase)
    return changed(
        (owner, method, names)
        for owner in owners
        for method, names in _FAST_TRANSPORT_METHODS[owner.__name__].items()
    )


def accept_changes() -> list[str]:
    """Return what has changed in how ``tcp.Port`` accepts connections."""
    from twisted.internet.tcp import Port

    return changed((Port, method, names) for method, names in _ACCEPT_METHODS.items())


def tls_transport_changes() -> list[str]:
    """Return what has changed in the methods that ``TlsTransport`` relies on."""
    # Not at the top: OpenSSL takes a tenth of a second to import.
    from twisted.protocols import tls

    return changed(
        (owner, method, names)
        for owner in (tls.TLSMemoryBIOProtocol, tls.BufferingTLSTransport)
        for method, names in _TLS_METHODS[owner.__name__].items()
    )


def tls_buffers_changes() -> list[str]:
    """Return what has changed of what :func:`tls_buffers_release` relies on, in pyOpenSSL."""
    from OpenSSL import _util

    found = _connection_changes(_TLS_BUFFERS)
    return found if hasattr(_util.lib, "BIO_get_mem_data") else [*found, "BIO_get_mem_data"]


def tls_calls_changes() -> list[str]:
    """Return what has changed of pyOpenSSL's calls of what :func:`openssl` returns."""
    return _connection_changes(_TLS_CALLS)


def openssl() -> tuple[Any, Any]:  # Any: made by cffi
    """Return the library that pyOpenSSL calls, and what makes its buffers."""
    from OpenSSL._util import ffi, lib

    return lib, ffi


def _connection_changes(known: dict[str, str]) -> list[str]:
    from OpenSSL import SSL

    return [
        f"Connection.{method}"
        for method, names in known.items()
        if not _uses(SSL.Connection, method, names)
    ]


def tls_buffers_release() -> Callable[[Any], None]:  # Any: an SSL.Connection, imported late
    """
    Return what frees the memory of the buffers between a TLS connection and its transport.

    OpenSSL never makes such a buffer (a memory BIO) smaller: the connection gets new ones. It must
    have completed its handshake; nothing is done while one of its buffers is not empty.
    """
    library, ffi = openssl()
    memory, new, set_buffers = library.BIO_s_mem(), library.BIO_new, library.SSL_set_bio
    size_of, begin, null = library.BIO_get_mem_data, ffi.new("char **"), ffi.NULL

    def release(connection: Any) -> None:  # Any: as above
        if size_of(connection._into_ssl, begin) or size_of(connection._from_ssl, begin):
            return
        into, from_ = new(memory), new(memory)
        if null in (into, from_):
            raise MemoryError
        # It owns them, and frees those that it had.
        set_buffers(connection._ssl, into, from_)
        connection._into_ssl, connection._from_ssl = into, from_

    return release


# The callbacks by which OpenSSL asks for pre-shared keys, as they must be declared.
_PSK = {
    "client": "unsigned int(*)(SSL *, char *, char *, unsigned int, unsigned char *, unsigned int)",
    "server": "unsigned int(*)(SSL *, char *, unsigned char *, unsigned int)",
}


def psk_changes() -> list[str]:
    """Return what has changed, or is not there, of what pre-shared keys rely on in pyOpenSSL."""
    from OpenSSL import SSL

    lib, ffi = openssl()
    found = []
    for side, kind in _PSK.items():
        setter = getattr(lib, f"SSL_CTX_set_psk_{side}_callback", None)
        if setter is None or ffi.typeof(setter).args[1].cname != kind:
            found.append(f"SSL_CTX_set_psk_{side}_callback")
    uses = names_used(SSL.Context, "__init__") or set()
    return found if "_context" in uses else [*found, "Context._context"]


def verify_failure(connection: Any) -> str | None:  # Any: as above
    """
    Return what is wrong with the certificate of a peer, in OpenSSL's words.

    :return: such as ``certificate has expired``; None for nothing, and if that cannot be known.
    """
    library, ffi = openssl()
    try:
        code = library.SSL_get_verify_result(connection._ssl)
        found: bytes = ffi.string(library.X509_verify_cert_error_string(code)) if code else b""
    except AttributeError:
        return None
    return found.decode("ascii", "replace") or None


def quiet_reactor_changes() -> list[str]:
    """Return what has changed in the methods that ``QuietEPollReactor`` relies on."""
    # Not at the top: it exists on Linux only.
    from twisted.internet.epollreactor import EPollReactor

    return changed(
        (EPollReactor, method, names) for method, names in _EPOLL_REACTOR_METHODS.items()
    )


def reactor_time_changes(reactor: type) -> list[str]:
    """Return what has changed in the timers of a class of reactors, or in their delayed calls."""
    from twisted.internet.base import DelayedCall

    return changed(
        (owner, method, names)
        for owner in (*reactor.__mro__, DelayedCall)
        for method, names in _REACTOR_TIME_METHODS.get(owner.__name__, {}).items()
    )


_Call = Callable[[], None]


def poll_hook(reactor: object, before: _Call, after: _Call) -> _Call | None:
    """
    Have functions called before and after each poll of a reactor that was made by Twisted.

    :return: undoes it; None for a reactor that has no place for this, or has changed.
    """
    # Not getattr: a proxy of a reactor has them, too, but setting them there changes nothing.
    state: dict[str, Any] = getattr(reactor, "__dict__", {})  # Any: attributes of all kinds
    poller = state.get("_poller")
    if poller is not None and _uses(type(reactor), "doIteration", "_poller poll"):
        hooked = _HookedPoller(poller, before, after)

        def restore() -> None:
            if state.get("_poller") is hooked:
                state["_poller"] = poller

        state["_poller"] = hooked
        return restore
    loop = state.get("_asyncioEventloop")
    # uvloop has none.
    selector = getattr(loop, "_selector", None)
    if isinstance(selector, BaseSelector) and _uses(type(loop), "_run_once", "_selector select"):
        return _hook_selector(selector, before, after)
    return None


def _uses(owner: type, method: str, names: str) -> bool:
    return set(names.split()) <= (names_used(owner, method) or set())


def _hook_selector(selector: BaseSelector, before: _Call, after: _Call) -> _Call:
    state, select = vars(selector), selector.select

    def hooked(timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        before()
        try:
            return select(timeout)
        finally:
            after()

    def restore() -> None:
        # Unless somebody else has hooked it since, by way of this one.
        if state.get("select") is hooked:
            del state["select"]

    state["select"] = hooked
    return restore


class _HookedPoller:
    """The poller of a reactor, with calls before and after each poll."""

    # Any: select.epoll or select.poll.
    def __init__(self, poller: Any, before: _Call, after: _Call) -> None:
        self._poller = poller
        self._before = before
        self._after = after

    def poll(self, *arguments: float) -> list[tuple[int, int]]:
        """Poll, as the poller does."""
        self._before()
        try:
            found: list[tuple[int, int]] = self._poller.poll(*arguments)
        finally:
            self._after()
        return found

    def __getattr__(self, name: str) -> Any:  # Any: whatever pollers have
        return getattr(self._poller, name)


def log_observers() -> list[ILogObserver]:
    """Return the observers of the log; none if Twisted keeps them somewhere else."""
    return list(getattr(globalLogPublisher, "_observers", ()))


def systemd_sockets() -> ListenFDs:
    """
    Return the sockets that systemd has passed to this process (sd_listen_fds(3)).

    Importing Twisted's endpoints removes them from the environment; Twisted then keeps them in
    a private attribute for its own ``systemd:`` endpoints. If a future Twisted has no such
    attribute, they are read from the environment. TCP and UDP sockets are counted together.
    """
    from twisted.internet import endpoints

    parser = getattr(endpoints, "_SystemdParser", None)
    passed = getattr(parser, "_sddaemon", None)
    return passed if isinstance(passed, ListenFDs) else _from_environment()


@cache
def _from_environment() -> ListenFDs:
    # Once: reading them removes them from the environment.
    return ListenFDs.fromEnvironment()


def signalled_log_file(handler: object) -> LogFile | None:
    """
    Return the log file that a handler of SIGUSR1 rotates, if ``twistd --logfile`` has set it.

    The file is a variable of the function that Twisted makes the handler in.
    """
    names = getattr(getattr(handler, "__code__", None), "co_freevars", ())
    cells = getattr(handler, "__closure__", None) or ()
    for name, cell in zip(names, cells, strict=False):
        if name == "logFile" and isinstance(cell.cell_contents, LogFile):
            return cell.cell_contents
    return None


def log_file_moved(file: LogFile) -> bool:
    """Return whether another file, or none, is now where a log file was opened."""
    opened = getattr(file, "_file", None)
    if opened is None or opened.closed:  # by a rotation that failed
        return True
    try:
        return not os.path.samestat(os.stat(file.path), os.fstat(opened.fileno()))
    except OSError:
        return True


def reopen_log_file(file: LogFile) -> None:
    """
    Open a log file again where it is by name. Twisted closes the old one first.

    :raises OSError: if that fails; the old one stays in use.
    """
    names: Any = file  # Any: its attribute has no type
    opened = getattr(file, "_file", None)
    try:
        file._openFile()
    except OSError:
        failed = getattr(file, "_file", None)
        if failed is not None and failed is not opened:
            names._file = opened
            failed.close()
        raise
    if opened is not None:
        opened.close()


def rotate_log_file(file: LogFile) -> None:
    """
    Rotate a log file. Twisted closes it before it opens another one.

    :raises OSError: if that fails; it stays in use under the name that it has by then.
    """
    if not os.access(file.directory, os.W_OK):
        # Twisted does nothing then.
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), file.directory)
    names: Any = file  # Any: its attribute has no type
    kept = os.fdopen(os.dup(names._file.fileno()), "rb+", 0)
    try:
        file.rotate()
    except OSError:
        if names._file.closed:
            names._file, kept = kept, names._file
        raise
    finally:
        kept.close()
