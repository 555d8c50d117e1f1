"""Settings of the HTTP cache: the section ``[http.cache]``."""

from __future__ import annotations

import re
from fnmatch import translate
from typing import Annotated

from msgspec import Meta

from twisted_net.config.record import Record
from twisted_net.http.cache.directives import MAX_DELTA_SECONDS


class CacheSettings(Record, frozen=True):
    """
    What a cache may store, and how much of it.

    Private by default. A heuristic lifetime is used only with ``Last-Modified``: a tenth of the
    time since then, as RFC 9111 §4.2.2 suggests, and at most a day, so that no mistake lasts
    longer. The original client kept every response for 300 s: ``default_ttl = 300`` does so for
    services that state no lifetime. The limits suit one process that calls a few services: 1000
    responses and 64 MiB in all, with no body larger than a sixteenth of that.
    """

    enabled: Annotated[bool, Meta(description="cache responses")] = True
    shared: Annotated[
        bool, Meta(description="serve one user's responses to others, as a proxy does")
    ] = False
    targets: Annotated[
        tuple[str, ...],
        Meta(
            description="fields that a shared cache obeys in place of Cache-Control, the most"
            " specific first (RFC 9213)"
        ),
    ] = ("CDN-Cache-Control",)
    default_ttl: (
        Annotated[
            float,
            Meta(
                ge=0,
                le=MAX_DELTA_SECONDS,
                description="lifetime of responses that state none, in seconds",
            ),
        ]
        | None
    ) = None
    ttl_by_url: Annotated[
        tuple[str, ...],
        Meta(
            description="lifetimes of responses that state none, by pattern of the URL, as"
            ' "https://api.example/* 60"; the first that matches counts, before default_ttl'
        ),
    ] = ()
    stale_if_error: Annotated[
        float,
        Meta(
            ge=0,
            le=MAX_DELTA_SECONDS,
            description="how long a stale response may be served in place of an error of its"
            " server, in seconds past its lifetime (RFC 5861); 0: only as its server or the request"
            " says",
        ),
    ] = 0.0
    heuristic_fraction: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="lifetime of a response that states none, as a fraction of the time since"
            " its Last-Modified; 0: none",
        ),
    ] = 0.1
    heuristic_max: Annotated[
        float,
        Meta(ge=0, le=MAX_DELTA_SECONDS, description="longest heuristic lifetime, in seconds"),
    ] = 86_400.0
    max_entries: Annotated[int, Meta(ge=1, description="limit of responses kept")] = 1000
    max_bytes: Annotated[int, Meta(ge=1, description="limit of bytes kept, in all")] = 64 * 2**20
    max_object: Annotated[int, Meta(ge=1, description="largest body kept, in bytes")] = 4 * 2**20
    max_variants: Annotated[
        int, Meta(ge=1, le=1000, description="limit of responses kept for one URL")
    ] = 64
    file: (
        Annotated[
            str,
            Meta(
                min_length=1,
                description="SQLite file that keeps the cache across restarts, created if it does"
                " not exist; absent: the cache is in memory",
            ),
        ]
        | None
    ) = None
    max_memory: Annotated[
        int,
        Meta(
            ge=0,
            description="limit of bytes of the responses in the file that are kept in memory too;"
            " 0: none",
        ),
    ] = 16 * 2**20

    def __post_init__(self) -> None:
        super().__post_init__()
        for text in self.ttl_by_url:
            url_pattern(text)


def url_pattern(text: str) -> tuple[re.Pattern[str], float]:
    """
    Parse an item of ``ttl_by_url``; return its pattern, for a whole URL, and its seconds.

    :raises ValueError: if it is malformed.
    """
    pattern, _, ttl = text.strip().rpartition(" ")
    try:
        number = float(ttl)
    except ValueError:
        number = -1.0
    if not pattern or not 0 <= number <= MAX_DELTA_SECONDS:
        raise ValueError(f'ttl_by_url: {text!r} is not a pattern and seconds, as "https://a/* 60"')
    return re.compile(translate(pattern.strip())), number
