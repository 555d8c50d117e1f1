"""What an operator or embedder can set about HTTP: the sections ``[http]`` and ``[fetch]``."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, field

from twisted_net import __version__
from twisted_net.config.record import Record
from twisted_net.http.cache.settings import CacheSettings
from twisted_net.http.proxies import find_proxy_routes
from twisted_net.http.retry.settings import BudgetSettings, CircuitBreakerSettings, RetryPolicy
from twisted_net.http.ssrf_guard import EgressPolicy


class HttpSettings(Record, frozen=True):
    """
    How the HTTP client behaves.

    30 s in all is what the original client allowed. Within it a connection has 10 s, since a
    host that is there answers in a fraction of one, and a retry elsewhere may still succeed.
    A body of 16 MiB holds any answer of an API; whoever downloads more says so. As many idle
    connections as a busy service uses to one origin are kept, for a minute: servers close theirs
    after 5 to 75 s. A hundred requests at a time to one origin are what other clients open in
    all; a thousand more may wait for their turn, but none of them longer than for a connection.
    Proxies are used only when told so: the environment alone changes nothing.
    """

    timeout: Annotated[
        float,
        Meta(
            gt=0,
            le=86_400,
            description="longest time for a call with all retries, waits and the body, in seconds",
        ),
    ] = 30.0
    connect_timeout: Annotated[
        float,
        Meta(gt=0, le=86_400, description="longest time to find and connect to a host, in seconds"),
    ] = 10.0
    headers_timeout: (
        Annotated[
            float,
            Meta(
                gt=0,
                le=86_400,
                description="longest wait for a response's header, in seconds; absent: no limit"
                " but the total one",
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
                description="longest silence within a body, in seconds; absent: no limit but the"
                " total one",
            ),
        ]
        | None
    ) = None
    max_body: Annotated[
        int,
        Meta(ge=0, description="largest response body, as sent and as decompressed, in bytes"),
    ] = 16 * 2**20
    max_head: Annotated[
        int, Meta(ge=1024, description="bytes after which a response's header must be over")
    ] = 64 * 2**10
    max_redirects: Annotated[
        int, Meta(ge=0, le=100, description="most redirects followed in one call")
    ] = 10
    idle_per_origin: Annotated[
        int, Meta(ge=0, description="most idle connections kept open to one origin")
    ] = 10
    max_idle: Annotated[int, Meta(ge=0, description="most idle connections kept open")] = 100
    idle_timeout: Annotated[
        float, Meta(gt=0, le=86_400, description="how long an idle connection is kept, in seconds")
    ] = 60.0
    max_per_origin: Annotated[
        int,
        Meta(ge=1, le=65_535, description="most requests that run at a time, to one origin"),
    ] = 100
    max_queued: Annotated[
        int, Meta(ge=0, description="most requests that wait for their turn, to one origin")
    ] = 1000
    queue_timeout: Annotated[
        float, Meta(gt=0, le=86_400, description="longest wait for a turn, in seconds")
    ] = 10.0
    max_origins: Annotated[
        int,
        Meta(ge=1, description="most origins whose failures are remembered"),
    ] = 1000
    user_agent: Annotated[
        str, Meta(pattern=r"^[\x20-\x7e]+$", description="what requests name as their User-Agent")
    ] = f"twisted_net/{__version__}"
    proxy: (
        Annotated[
            str,
            Meta(
                min_length=1,
                description="URL of the proxy for all requests, http://user:password@host:port, or"
                " environment to take HTTP_PROXY, HTTPS_PROXY and NO_PROXY; absent: no proxy",
                extra={"secret": True},
            ),
        ]
        | None
    ) = None
    no_proxy: Annotated[
        tuple[str, ...],
        Meta(
            description="hosts reached without the proxy: names (with all below them),"
            " .domains, addresses, each with a port if need be; networks; or * for all"
        ),
    ] = ()
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


class FetchSettings(EgressPolicy, frozen=True):
    """
    What the FETCH command reaches and shows.

    Its URLs come from strangers, so it reaches what
    :class:`~twisted_net.http.ssrf_guard.EgressPolicy` does by default. A body of 256 KiB is much
    for one line of an answer. The fields shown are those that say what the body is and how long it
    keeps.
    """

    max_body: Annotated[int, Meta(ge=0, description="largest body that is fetched, in bytes")] = (
        256 * 2**10
    )
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
