"""Time limits of one call: for the whole of it, and for each of its phases."""

from __future__ import annotations

from attrs import field, frozen
from msgspec import UNSET, UnsetType

from twisted_net.config.type_checks import check_arguments, checked_seconds
from twisted_net.http.calls.synonyms import TIMEOUT_SYNONYMS

Limit = float | None | UnsetType
"""Seconds; None for no limit; UNSET for that of the settings."""


@check_arguments(synonyms=TIMEOUT_SYNONYMS)
@frozen(kw_only=True)
class Timeouts:
    """
    Time limits of one call, by phase, in seconds; each is a setting of the same name.

    What is not passed is as in the settings, and None is no limit.

    :param total: of the whole call with all retries, waits and the body (``timeout``).
    :param connect: of the look-up and connection of a host (``connect_timeout``).
    :param headers: until the header of a response is complete (``headers_timeout``).
    :param silence: of a silence within a body (``silence_timeout``).
    :raises TypeError: for a limit that is no number.
    :raises ValueError: for one that is negative or not finite.
    """

    total: Limit = field(default=UNSET)
    connect: Limit = field(default=UNSET)
    headers: Limit = field(default=UNSET)
    silence: Limit = field(default=UNSET)

    def __attrs_post_init__(self) -> None:
        for name in ("total", "connect", "headers", "silence"):
            value = getattr(self, name)
            if value is not UNSET and value is not None:
                checked_seconds(value, f"Timeouts: {name}")


def limit_or(limit: Limit, default: float | None) -> float | None:
    """Return a limit of a call, or that of the settings where it has none of its own."""
    return default if limit is UNSET else limit
