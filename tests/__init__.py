"""The tests, and what holds for all of them, whoever runs them: pytest or trial."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A busy machine fails no example: neither for its time nor for that of drawing it.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")
