"""HTTP settings: the sections ``[http]`` and ``[fetch]`` of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from twisted_net import __version__
from twisted_net.config.record import Record
from twisted_net.config.tls import ClientTlsSettings
from twisted_net.http.cache.settings import CacheSettings
from twisted_net.http.host_patterns import HostPatterns
from twisted_net.http.proxies import find_proxy_routes
from twisted_net.http.retry.settings import BudgetSettings, CircuitBreakerSettings, RetryPolicy


class HttpSettings(Record, frozen=True):
    """
    Limits, timeouts, proxy, retries and cache of the HTTP client.

    A total of 30 s is what the original client allowed. Connecting may take 10 s of it, since a
    reachable host answers in a fraction of a second, and a retry of another address may still
    succeed. 16 MiB hold any response of an API; a download sets a larger limit. Idle connections
    to one origin are kept for a minute, as many as a busy service uses: servers close theirs after
    5 to 75 s. A hundred requests at a time to one origin are what other clients open in all; a
    thousand more may wait for a slot, no longer than for a connection. A server has a second to
    agree to a body, as curl has it. A proxy is used only if it is set here: environment variables
    alone change nothing.
    """

    timeout: Annotated[
        float,
        Meta(
            gt=0,
            le=86_400,
            description="timeout of a call with all retries, waits and the body, in seconds",
        ),
    ] = 30.0
    connect_timeout: Annotated[
        float,
        Meta(
            gt=0,
            le=86_400,
            description="timeout of the look-up and connection of a host, in seconds",
        ),
    ] = 10.0
    headers_timeout: (
        Annotated[
            float,
            Meta(
                gt=0,
                le=86_400,
                description="timeout of a response's header, in seconds; absent: only the total"
                " timeout",
            ),
        ]
        | None
    ) = None
    silence_timeout: (
        Annotated[
            float,
            Meta(
                gt=0,
                le=86_400,
                description="timeout of a silence within a body, in seconds; absent: only the"
                " total timeout",
            ),
        ]
        | None
    ) = None
    continue_timeout: Annotated[
        float,
        Meta(
            gt=0,
            le=86_400,
            description="how long the body of a request with Expect: 100-continue waits for the"
            " server to agree, in seconds; then it is sent",
        ),
    ] = 1.0
    max_body: Annotated[
        int,
        Meta(ge=0, description="limit of a response body, as sent and as decompressed, in bytes"),
    ] = 16 * 2**20
    max_head: Annotated[
        int, Meta(ge=1024, description="limit of a response's header, in bytes")
    ] = 64 * 2**10
    max_redirects: Annotated[
        int, Meta(ge=0, le=100, description="limit of redirects followed in one call")
    ] = 10
    idle_per_origin: Annotated[
        int, Meta(ge=0, description="limit of idle connections to one origin")
    ] = 100
    max_idle: Annotated[int, Meta(ge=0, description="limit of idle connections in all")] = 100
    idle_timeout: Annotated[
        float, Meta(gt=0, le=86_400, description="how long an idle connection is kept, in seconds")
    ] = 60.0
    max_per_origin: Annotated[
        int,
        Meta(ge=1, le=65_535, description="limit of requests that run at a time, to one origin"),
    ] = 100
    max_queued: Annotated[
        int, Meta(ge=0, description="limit of requests that wait for a slot, to one origin")
    ] = 1000
    queue_timeout: Annotated[
        float, Meta(gt=0, le=86_400, description="timeout of the wait for a slot, in seconds")
    ] = 10.0
    max_origins: Annotated[
        int,
        Meta(ge=1, description="limit of origins whose failures are recorded"),
    ] = 1000
    user_agent: Annotated[
        str, Meta(pattern=r"^[\x20-\x7e]+$", description="User-Agent of requests")
    ] = f"twisted_net/{__version__}"
    proxy: (
        Annotated[
            str,
            Meta(
                min_length=1,
                description="URL of the proxy for all requests, http://user:password@host:port, or"
                " environment to use HTTP_PROXY, HTTPS_PROXY and NO_PROXY; absent: no proxy",
                extra={"secret": True},
            ),
        ]
        | None
    ) = None
    no_proxy: Annotated[
        tuple[str, ...],
        Meta(
            description="hosts reached without the proxy: names (with all names below them),"
            " .domains, addresses, each with an optional port; networks; or * for all"
        ),
    ] = ()
    tls: ClientTlsSettings = field(default_factory=ClientTlsSettings)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    breaker: CircuitBreakerSettings = field(default_factory=CircuitBreakerSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, proxy in (("proxy", self.proxy), ("no_proxy", "localhost")):
            try:
                find_proxy_routes(proxy, self.no_proxy if name == "no_proxy" else (), {})
            except ValueError as error:
                raise ValueError(f"{type(self).__name__}.{name}: {error}") from None


class EgressPolicy(Record, frozen=True):
    """
    Where requests may go.

    The defaults suit URLs from untrusted sources: public addresses at the ports of the web, and
    nothing else. The destinations in ``allow`` are trusted by the operator and are reached too, at
    any port. ``deny`` has precedence over ``allow``. An entry of either is a host name
    (``localhost``), a domain with all names below it (``*.example.org``), an address
    (``127.0.0.1``, ``::1``) or a network (``10.0.0.0/8``).

    A name that is allowed may have any address that is not denied. Of any other name **every**
    address must be allowed: a single one that is not refuses it.
    """

    schemes: Annotated[
        tuple[Literal["http", "https"], ...], Meta(description="URL schemes that may be requested")
    ] = ("http", "https")
    ports: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=65_535)], ...],
        Meta(description="ports that may be reached; empty for all"),
    ] = (80, 443)
    public: Annotated[bool, Meta(description="permit requests to public addresses")] = True
    allow: Annotated[
        tuple[str, ...],
        Meta(description="names, addresses and networks reached besides, at any port"),
    ] = ()
    deny: Annotated[
        tuple[str, ...], Meta(description="names, addresses and networks never reached")
    ] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("allow", "deny"):
            for entry in getattr(self, name):
                try:
                    HostPatterns((entry,))
                except ValueError as error:
                    raise ValueError(f"{type(self).__name__}.{name}: {error}") from None


class FetchSettings(EgressPolicy, frozen=True):
    """
    Where the FETCH command may go, and what it shows.

    Its URLs come from untrusted clients, so the defaults are those of :class:`EgressPolicy`. A body
    of 256 KiB is large for one line of an answer. The fields shown are those that describe the body
    and its lifetime.

    At a name server that does not answer, a look-up takes its thread for 10 s or more. A user, or
    an address without one, gets no further thread while it has as many as are free. The same holds
    for FETCHes that run, each of which may keep a body: 256 of them keep 64 MiB at most.
    """

    lookup_threads: Annotated[
        int, Meta(ge=1, le=1000, description="threads that look up names of hosts")
    ] = 16
    max_lookups: Annotated[
        int, Meta(ge=1, le=100_000, description="names that are looked up or wait for it")
    ] = 256

    max_running: Annotated[
        int, Meta(ge=1, le=100_000, description="FETCHes that run at a time, of all clients")
    ] = 256
    max_body: Annotated[int, Meta(ge=0, description="limit of the body, in bytes")] = 256 * 2**10
    headers: Annotated[
        tuple[str, ...], Meta(description="response header fields that are shown")
    ] = (
        "content-type",
        "content-length",
        "date",
        "last-modified",
        "etag",
        "cache-control",
        "expires",
        "age",
        "location",
        "retry-after",
    )
