"""Writes who logged in, who was refused and what administrators did to a log of its own."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from twisted_net.net.rate_limit import RateLimiter
from twisted_net.reasons import MAX_SHOWN, Audited

LINES_PER_SECOND, BURST = 50, 500
"""
Lines of the audit: whoever is refused a thousand times a second is not to fill a disk. Those left
out are counted, and the next line says how many they were.
"""

log = Logger(namespace="twisted_net.audit")


class Audit:
    """
    Writes the audit, in the namespace ``twisted_net.audit``.

    What happened is quoted, so that no client can write a line of its own. Secrets do not come
    here: the arguments of AUTH are nobody's business.

    :ivar left_out: lines that were not written, as too many came at a time.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._rate = RateLimiter(LINES_PER_SECOND, BURST)
        self._unsaid = 0
        self.left_out = 0

    def __call__(self, event: str, client: Audited, what: str) -> None:
        """
        Write a line.

        :param event: ``login``, ``refused``, ``command`` or ``closed``.
        :param what: more about it, in words; 200 characters are shown.
        """
        now = self._reactor.seconds()
        if self._rate.wait("", now) > 0:
            self.left_out += 1
            self._unsaid += 1
            return
        self._rate.charge("", now)
        if self._unsaid:
            log.warn("{count} lines of the audit were left out", count=self._unsaid)
            self._unsaid = 0
        log.info(
            "{event}: {client} as {user}: {what!r}",
            event=event,
            client=client.name,
            user=client.user or "nobody",
            what=what if len(what) <= MAX_SHOWN else what[:MAX_SHOWN] + "…",
        )
