"""What one command server accepts, and what happens beyond it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from twisted_net.records import Record


class Limits(Record, frozen=True):
    """
    The bounds of one command server; sizes in bytes, times in seconds.

    - ``max_connections``: one more is answered with ``too_many_connections`` and closed.
      10 000 is what Redis takes by default.
    - ``max_line``: a longer line is answered with ``line_too_long`` and skipped.
    - ``max_pending``: over this many unanswered lines the connection is not read until
      answers have left. 64 waiting handlers keep a connection busy, and bound its memory.
    - ``turn_budget``: after this many lines of one connection the other connections have
      their turn. 64 lines cost about 0.1 ms, which is what a neighbour then waits.
    - ``max_output``: a connection whose peer does not read takes this many bytes of events
      (broadcasts) above the 64 KiB that Twisted buffers; further ones are not delivered
      and counted. Its answers are bounded by ``max_pending``.
    - ``write_timeout``: a peer that has not read what waits for it within this time is
      disconnected.
    - ``idle_timeout``: a connection from which nothing came for this long, and which waits
      for nothing, is told so and closed, at most a quarter or a second later. 0 is never.
    - ``command_timeout``: a waiting handler is cancelled, and answered with ``timeout``. It
      is above the HTTP client's own 30 s, whose error says more.
    - ``max_blocking``: blocking commands of all connections that run in a thread or wait for
      one; one more is answered with ``busy``.
    - ``handshake_timeout``: a client of a listener with PROXY headers, TLS or WebSocket is
      disconnected where one of these takes longer, from its first moment on. Handshakes over
      slow mobile links take some seconds.
    - ``max_handshakes``: over this many under way at one time, the one that began first is
      broken off, so that clients which never finish do not keep out those that do. Each costs
      some 50 KiB.
    """

    max_connections: Annotated[int, Meta(ge=1, description="connections at once")] = 10_000
    max_line: Annotated[
        int, Meta(ge=64, le=16_777_216, description="longest line, in bytes, without its end")
    ] = 16_384
    max_pending: Annotated[
        int, Meta(ge=1, le=65_536, description="unanswered lines per connection")
    ] = 64
    turn_budget: Annotated[
        int, Meta(ge=1, le=65_536, description="lines run per connection and reactor turn")
    ] = 64
    max_output: Annotated[
        int, Meta(ge=0, description="bytes of events kept for a peer that does not read")
    ] = 1_048_576
    write_timeout: Annotated[
        float,
        Meta(gt=0, le=86_400, description="seconds in which a peer must read what waits for it"),
    ] = 30.0
    idle_timeout: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="seconds of silence after which a connection is closed; 0: never",
        ),
    ] = 600.0
    command_timeout: Annotated[
        float, Meta(gt=0, le=86_400, description="seconds that a waiting command may take")
    ] = 60.0
    max_blocking: Annotated[
        int, Meta(ge=1, description="blocking commands that run or wait for a thread")
    ] = 1000
    handshake_timeout: Annotated[
        float,
        Meta(
            gt=0, le=86_400, description="seconds for a PROXY header, a TLS handshake, a WebSocket"
        ),
    ] = 10.0
    max_handshakes: Annotated[int, Meta(ge=1, description="handshakes under way at once")] = 1000
