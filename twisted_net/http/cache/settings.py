"""Settings of the HTTP cache: the section ``[http.cache]``."""

from __future__ import annotations

import re
from fnmatch import translate
from typing import Annotated

from msgspec import Meta

from twisted_net.config.record import Record
from twisted_net.http.cache.directives import NEVER


class CacheSettings(Record, frozen=True):
    """
    What a cache may keep.

    Private by default. A lifetime is guessed only from ``Last-Modified``, a tenth of the time
    since then as RFC 9111 §4.2.2 suggests, and for a day at most, so that no mistake lives longer.
    The original client kept every answer for 300 s: ``default_ttl = 300`` does so for services
    that say nothing. The bounds suit one process that talks to a few services: a thousand
    answers, 64 MiB in all, none of which is larger than a sixteenth of it.
    """

    enabled: Annotated[bool, Meta(description="whether answers are kept at all")] = True
    shared: Annotated[
        bool, Meta(description="serve one user's answers to others, as a proxy does")
    ] = False
    targets: Annotated[
        tuple[str, ...],
        Meta(
            description="fields that a shared cache obeys in place of Cache-Control, best first"
            " (RFC 9213)"
        ),
    ] = ("CDN-Cache-Control",)
    default_ttl: (
        Annotated[
            float,
            Meta(ge=0, le=NEVER, description="lifetime of answers that state none, in seconds"),
        ]
        | None
    ) = None
    ttl_by_url: Annotated[
        tuple[str, ...],
        Meta(
            description="lifetimes of answers that state none, by pattern of the URL, as"
            ' "https://api.example/* 60"; the first that fits counts, before default_ttl'
        ),
    ] = ()
    heuristic_fraction: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="part of the time since Last-Modified that an answer without a lifetime"
            " is fresh; 0: never",
        ),
    ] = 0.1
    heuristic_max: Annotated[
        float, Meta(ge=0, le=NEVER, description="longest lifetime that is guessed, in seconds")
    ] = 86_400.0
    max_entries: Annotated[int, Meta(ge=1, description="most answers kept")] = 1000
    max_bytes: Annotated[int, Meta(ge=1, description="most bytes kept, in all")] = 64 * 2**20
    max_object: Annotated[int, Meta(ge=1, description="largest answer kept, in bytes")] = 4 * 2**20
    max_variants: Annotated[
        int, Meta(ge=1, le=1000, description="most answers kept for one URL")
    ] = 64
    file: (
        Annotated[
            str,
            Meta(
                min_length=1,
                description="SQLite file that keeps the answers from one start to the next, made"
                " if it is not there; absent: memory",
            ),
        ]
        | None
    ) = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for text in self.ttl_by_url:
            url_pattern(text)


def url_pattern(text: str) -> tuple[re.Pattern[str], float]:
    """A pattern of ``ttl_by_url`` and its seconds."""
    pattern, _, ttl = text.strip().rpartition(" ")
    try:
        number = float(ttl)
    except ValueError:
        number = -1.0
    if not pattern or not 0 <= number <= NEVER:
        raise ValueError(f'ttl_by_url: {text!r} is not a pattern and seconds, as "https://a/* 60"')
    return re.compile(translate(pattern.strip())), number
