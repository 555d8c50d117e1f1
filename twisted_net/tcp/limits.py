"""Limits of command servers and clients: sizes, counts, rates and times."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from twisted_net.config.record import Record


class Limits(Record, frozen=True):
    """
    The bounds of one command server; sizes in bytes, times in seconds.

    - ``max_connections``: one more is answered with ``too_many_connections`` and closed.
      10 000 is what Redis takes by default.
    - ``max_line``: a longer line is answered with ``line_too_long`` and skipped.
    - ``max_pending``: over this many unanswered lines the connection is not read until
      answers have left. 64 waiting handlers keep a connection busy, and bound its memory.
    - ``turn_budget``: after this many lines of one connection the other connections have
      their turn. 64 lines take about 0.1 ms, which is how long another client then waits.
    - ``turn_time``: the same after this time, for lines that take longer than usual: another client
      then waits for this time and one line more. However many connections have lines left, they
      share a millisecond of each reactor turn.
    - ``max_output``: bytes of events (broadcasts) that are kept for a peer that does not read,
      above the 64 KiB that Twisted buffers; further ones are dropped and counted. Its answers
      are bounded by ``max_pending``.
    - ``write_timeout``: a peer that has not read what waits for it within this time is
      disconnected.
    - ``idle_timeout``: a connection from which nothing came for this long, and which waits
      for nothing, gets an event and is closed, at most a quarter of the time or a second later.
      0 is never.
    - ``command_timeout``: a waiting handler is cancelled, and answered with ``timeout``. It
      is longer than the HTTP client's own 30 s, whose error says more.
    - ``max_blocking``: blocking commands of all connections that run in a thread or wait for
      one. One more is answered with ``busy``, or one of the client that has most of them.
    - ``blocking_threads``: of this listener alone. A user, or an address without one, gets no
      further thread while it has as many as are free: half of them at most.
    - ``handshake_timeout``: a client of a listener with PROXY headers, TLS or WebSocket is
      disconnected if one of these takes longer, measured from the connection on. Handshakes over
      slow mobile links take some seconds.
    - ``max_handshakes``: over this many under way at one time the oldest is aborted, so that
      clients which never finish do not keep out those that do. Each costs some 50 KiB.
    - ``connections_per_address`` and its siblings: one more is answered with
      ``too_many_connections`` and closed; for a user, its login is refused. A network is a /24 of
      IPv4 or a /64 of IPv6; a /64 is one address, too, as its owner may use any of it. The clients
      of a Unix socket have the address of their user, such as ``unix:uid=1000``. There is no limit
      by default: behind a proxy that does not announce addresses all clients have the same.
    - ``commands_per_listener`` and its siblings: a command over the rate, and over a burst of
      ``command_burst`` after a pause, is answered with ``rate_limited`` and not run.
    - ``bytes_per_listener`` and its siblings: a client that sent and received more, and more than
      a burst of ``byte_burst``, is not read until its average is within the rate. Nothing is lost.
    - ``max_buffered``: over this many bytes in all buffers of the server (unfinished lines, lines
      and commands that wait, answers and events that are not read), the connections that hold most
      are aborted; messages of topics that wait have as much. A quarter GiB leaves room on a small
      machine.
    - ``keepalive``: TCP probes a peer that is silent for this long, and the connection is lost if
      it does not answer for as long again. 0 is never; a minute keeps the state of NATs and
      firewalls alive.
    """

    max_connections: Annotated[int, Meta(ge=1, description="concurrent connections")] = 10_000
    max_line: Annotated[
        int, Meta(ge=64, le=16_777_216, description="longest line, in bytes, without its ending")
    ] = 16_384
    max_pending: Annotated[
        int, Meta(ge=1, le=65_536, description="unanswered lines per connection")
    ] = 64
    turn_budget: Annotated[
        int, Meta(ge=1, le=65_536, description="lines run per connection and reactor turn")
    ] = 64
    turn_time: Annotated[
        float,
        Meta(gt=0, le=60, description="seconds that lines may take per connection and turn"),
    ] = 0.001
    max_output: Annotated[
        int, Meta(ge=0, description="bytes of events kept for a peer that does not read")
    ] = 1_048_576
    write_timeout: Annotated[
        float,
        Meta(gt=0, le=86_400, description="seconds in which a peer must read queued data"),
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
    blocking_threads: Annotated[
        int, Meta(ge=1, le=1000, description="threads for blocking commands")
    ] = 20
    handshake_timeout: Annotated[
        float,
        Meta(
            gt=0,
            le=86_400,
            description="seconds for a PROXY header, a TLS or a WebSocket handshake",
        ),
    ] = 10.0
    max_handshakes: Annotated[int, Meta(ge=1, description="concurrent handshakes")] = 1000
    connections_per_address: (
        Annotated[int, Meta(ge=1, description="concurrent connections of one address")] | None
    ) = None
    connections_per_network: (
        Annotated[int, Meta(ge=1, description="concurrent connections of one /24 or /64")] | None
    ) = None
    connections_per_user: (
        Annotated[int, Meta(ge=1, description="concurrent connections of one user")] | None
    ) = None
    commands_per_listener: (
        Annotated[float, Meta(gt=0, description="commands per second of all clients")] | None
    ) = None
    commands_per_address: (
        Annotated[float, Meta(gt=0, description="commands per second of one address")] | None
    ) = None
    commands_per_network: (
        Annotated[float, Meta(gt=0, description="commands per second of one /24 or /64")] | None
    ) = None
    commands_per_user: (
        Annotated[float, Meta(gt=0, description="commands per second of one user")] | None
    ) = None
    command_burst: Annotated[
        int, Meta(ge=1, description="burst: commands accepted at once after a pause")
    ] = 100
    bytes_per_listener: (
        Annotated[float, Meta(gt=0, description="bytes per second of all clients")] | None
    ) = None
    bytes_per_address: (
        Annotated[float, Meta(gt=0, description="bytes per second of one address")] | None
    ) = None
    bytes_per_network: (
        Annotated[float, Meta(gt=0, description="bytes per second of one /24 or /64")] | None
    ) = None
    bytes_per_user: (
        Annotated[float, Meta(gt=0, description="bytes per second of one user")] | None
    ) = None
    byte_burst: Annotated[
        int, Meta(ge=1, description="burst: bytes received and sent at once after a pause")
    ] = 1_048_576
    max_buffered: Annotated[
        int, Meta(ge=1_048_576, description="bytes in all buffers of the server together")
    ] = 268_435_456
    keepalive: Annotated[
        int,
        Meta(
            ge=0, le=32_767, description="idle seconds until TCP sends a keepalive probe; 0: never"
        ),
    ] = 60


class ClientSettings(Record, frozen=True):
    """
    The bounds of a client; sizes in bytes, times in seconds.

    - ``call_timeout``: with more than the server's own ``command_timeout`` and a round trip the
      caller would get the server's error, but few want to wait as long.
    - ``max_calls``: calls without an answer, those that wait for a connection included; one more
      fails with ``too_many_calls``. Calls that were cancelled count until their answer arrives.
    - ``max_line``: after a longer line the connection is aborted. A listing of 1000 clients has
      some 200 KiB, and a page of 256 KiB that FETCH returns at most six times as much.
    - ``max_values``: the same for a line of more JSON values (each member of an array or object,
      and each of these). A listing of 1000 clients has some 10,000. They are decoded in one reactor
      turn, which 100,000 make some 50 ms long.
    - ``max_events``, ``max_event_bytes``, ``when_full``: how many events that are not consumed yet
      are kept, and how much memory they may take (some ten times the bytes of their lines); and
      what happens to one more. One event is kept, whatever its size. ``disconnect`` aborts the
      connection, and connects again.
    - ``connect_timeout``: for the connection, TLS and AUTH together.
    - ``reconnect_base``, ``reconnect_cap``: the wait after *n* failures in a row is drawn evenly
      from 0 to ``base * 2**n``, at most ``cap`` ("full jitter"), so that the clients of a server
      that restarts do not reconnect in step. A connection counts as a failure until it has lasted
      for ``cap``.
    """

    call_timeout: Annotated[
        float, Meta(gt=0, le=86_400, description="seconds for an answer, unless the call says")
    ] = 30.0
    max_calls: Annotated[int, Meta(ge=1, description="calls that wait for an answer")] = 1000
    max_line: Annotated[int, Meta(ge=1024, description="longest answer or event, in bytes")] = (
        4_194_304
    )
    max_values: Annotated[
        int, Meta(ge=100, description="JSON values of one answer or event, all levels together")
    ] = 100_000
    max_events: Annotated[int, Meta(ge=1, description="events that wait to be taken")] = 1000
    max_event_bytes: Annotated[
        int, Meta(ge=1024, description="bytes of memory of the events that wait to be taken")
    ] = 16_777_216
    when_full: Annotated[
        Literal["drop_oldest", "drop_newest", "disconnect"],
        Meta(description="what is done with an event for which there is no room"),
    ] = "drop_oldest"
    connect_timeout: Annotated[
        float, Meta(gt=0, le=3600, description="seconds to connect and log in")
    ] = 10.0
    reconnect_base: Annotated[
        float, Meta(gt=0, le=3600, description="seconds, the longest first wait")
    ] = 0.1
    reconnect_cap: Annotated[
        float, Meta(gt=0, le=3600, description="seconds, the longest wait of all")
    ] = 30.0
