"""Counters of a DTLS server: handshakes, sessions and why they ended."""

from __future__ import annotations

from twisted_net.reasons import End


class DtlsCounts:
    """
    Counters of a DTLS server since its start; each only grows.

    :ivar challenged: ClientHellos answered with a cookie, without keeping state.
    :ivar stray: datagrams of sources without a session, and unencrypted ones of those with one.
    :ivar established: handshakes that succeeded.
    :ivar dropped: datagrams written to a session that had ended.
    :ivar ended: ended sessions and handshakes, by reason.
    """

    __slots__ = ("challenged", "dropped", "ended", "established", "stray")

    def __init__(self) -> None:
        self.challenged = 0
        self.stray = 0
        self.established = 0
        self.dropped = 0
        self.ended = dict.fromkeys(_ENDS, 0)


_ENDS = (
    End.CLIENT_CLOSED,
    End.CONNECTION_LOST,
    End.IDLE_TIMEOUT,
    End.DRAINED,
    End.TOO_MANY_CONNECTIONS,
    End.USER_LIMIT,
    End.HANDSHAKE_TIMEOUT,
    End.HANDSHAKE_FAILED,
    End.TOO_MANY_HANDSHAKES,
    End.BUFFERS_FULL,
)
