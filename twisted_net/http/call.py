"""Call terms: the deadline, limits and policies of one client call, and what it has done so far."""

from __future__ import annotations

from math import inf
from typing import Any

from attrs import define, field, frozen

from twisted_net.http.cache.rules import Rules
from twisted_net.http.errors import FetchTimeout
from twisted_net.http.proxies import Proxy, RoutedTarget
from twisted_net.http.retry.settings import RetryPolicy
from twisted_net.http.urls import HttpTarget


@define
class Deadline:
    """
    The end of the time for a whole call.

    :param at: by the reactor's clock. It becomes later where others wait for the same response,
        see :meth:`extend`: what waits until then looks again when its time is over.
    :param total: the seconds that were allowed, for the error message.
    """

    at: float
    total: float

    def extend(self, other: Deadline | None) -> None:
        """Become as late as another one; None for no end."""
        if other is None:
            self.at = self.total = inf
        elif other.at > self.at:
            self.at, self.total = other.at, other.total

    def exceeded(self, phase: str, waited: float = 0.0) -> FetchTimeout:
        """
        Return the error of a call that passes its deadline while it waits for *phase*.

        :param waited: for how many seconds it has waited for the server alone.
        """
        return FetchTimeout(phase, self.total, total=True, waited=waited)


@frozen
class CallOverrides:
    """
    What a call does otherwise than the settings say, below the cache.

    :param connect_timeout: of the look-up and connection, in seconds; None for none.
    :param headers_timeout: of a response's header; None for none.
    :param silence_timeout: of a silence within a body; None for none.
    :param routed: whether :attr:`proxy` replaces the routes of the settings.
    :param proxy: the proxy of the call; None for none.
    :param progress: reports the progress of each attempt.
    """

    connect_timeout: float | None
    headers_timeout: float | None
    silence_timeout: float | None
    routed: bool = False
    proxy: Proxy | None = None
    progress: Any = field(
        default=None, eq=False
    )  # Any: ProgressReports, of a module that stands above

    def target(self, target: HttpTarget) -> HttpTarget:
        """Return a target with the route of the call, if it has one of its own."""
        if not self.routed:
            return target
        return RoutedTarget(target.scheme, target.host, target.port, target.path, self.proxy)


@define(eq=False)
class Call:
    """
    The terms of one call of a client, which may take several requests, and its progress.

    :param deadline: None for no limit.
    :param rules: those of the cache; None to bypass the cache.
    :param max_body: limit of a body in bytes, as sent and as decompressed.
    :param buffer_body: whether each attempt reads its body to the end, so that a body that breaks
        off is requested again.
    :param idempotent: whether its requests may be repeated; None to follow the policy.
    :param overrides: None for what the settings say.
    :ivar url: of the last request.
    :ivar delay: seconds from the request to the attempt that brought the last response: those of
        earlier attempts, and of the waits between them.
    :ivar attempts: requests made over the network, in all.
    :ivar age: of the response in seconds, where it came from the cache; else None.
    :ivar broken: the response whose body broke off in the last attempt that failed, and what was
        received of the body; None if the attempt failed otherwise.
    :ivar body_unsent: whether the last attempt has sent nothing of a body that waited for a 100, so
        that even one that cannot be sent twice may be sent now.
    :ivar awaited: how the wait for another caller's request has ended, where the call has waited
        for one before its own request is begun.
    :ivar set_cookies: values of ``Set-Cookie`` that came over the network with a response out of
        the cache, which a 304 has validated; None where the response came over the network itself.
    """

    deadline: Deadline | None = None
    retry: RetryPolicy = field(factory=RetryPolicy)
    rules: Rules | None = None
    max_body: int = 0
    buffer_body: bool = False
    idempotent: bool | None = None
    overrides: CallOverrides | None = None
    url: str = ""
    delay: float = 0.0
    attempts: int = 0
    age: float | None = None
    set_cookies: list[str] | None = None
    body_unsent: bool = False
    awaited: Any = None  # Any: a WaitOutcome, of a module that stands above
    broken: tuple[Any, bytes] | None = None  # Any: an IResponse, which the core does not know
