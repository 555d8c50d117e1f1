"""Retries, retry budgets, circuit breakers and hedging of HTTP requests."""

from __future__ import annotations
