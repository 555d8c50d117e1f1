"""Type checks: arguments of public constructors and functions, each with one clear error."""

from __future__ import annotations

import math


def checked_seconds(value: float, name: str = "timeout") -> float:
    """
    Return a time limit.

    :raises TypeError: if it is no number.
    :raises ValueError: if it is negative, infinite or not a number (NaN).
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {value!r:.60}")
    # Compared, not math.isfinite(): a large integer is not converted.
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be 0 or more seconds, and finite, not {value}")
    return value
