"""
Retries of HTTP requests: policy, retry budget, circuit breaker, hedging, and the agent.

The names below are public; all modules of the package are internal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_net.http.retry.agent import RetryAgent as RetryAgent
    from twisted_net.http.retry.circuit_breaker import CircuitState as CircuitState
    from twisted_net.http.retry.policy import Attempt as Attempt
    from twisted_net.http.retry.retrier import log_attempt as log_attempt
    from twisted_net.http.retry.settings import BudgetSettings as BudgetSettings
    from twisted_net.http.retry.settings import CircuitBreakerSettings as CircuitBreakerSettings
    from twisted_net.http.retry.settings import RetryPolicy as RetryPolicy
else:
    from twisted_net import lazy_exports

    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "agent": ["RetryAgent"],
            "retrier": ["log_attempt"],
            "circuit_breaker": ["CircuitState"],
            "policy": ["Attempt"],
            "settings": ["BudgetSettings", "CircuitBreakerSettings", "RetryPolicy"],
        },
    )
