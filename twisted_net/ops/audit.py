"""Audit log: logins, refusals and administrative commands, in a log namespace of their own."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from twisted_net.config.type_checks import check_arguments
from twisted_net.net.characters import printable
from twisted_net.net.rate_limit import RateLimiter
from twisted_net.net.redaction import cut
from twisted_net.net.steady_clock import steady
from twisted_net.reasons import Audited

LINES_PER_SECOND, BURST = 50, 500
"""
Lines of the audit for each kind of event: a client that is refused a thousand times a second must
not fill the disk, nor hide that somebody logs in. Those left out are counted.
"""

COUNT_INTERVAL = 1.0
"""
Seconds between two lines that say how many were left out; each comes before one of the audit.

At the limit every other line would else be one of them.
"""

log = Logger(namespace="twisted_net.audit")


@check_arguments
class Audit:
    """
    Writes the audit, in the namespace ``twisted_net.audit``.

    What clients sent is quoted, so that none can forge a line. Arguments of secret commands, such
    as AUTH, never appear.

    :ivar left_out: lines that were not written because too many came at once.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = steady(reactor)
        self._rates = RateLimiter(LINES_PER_SECOND, BURST)
        self._unsaid = 0
        self._next_count = float("-inf")
        self.left_out = 0

    def __call__(self, event: str, client: Audited, what: str) -> None:
        """
        Write a line.

        :param event: ``login``, ``refused``, ``command`` or ``closed``.
        :param what: more about it, in words; see :func:`~twisted_net.net.redaction.cut`.
        """
        now = self._reactor.seconds()
        if self._rates.take(event, now) > 0:
            self.left_out += 1
            self._unsaid += 1
            return
        if self._unsaid and now >= self._next_count:
            self._next_count = now + COUNT_INTERVAL
            log.warn("{count} lines of the audit were left out", count=self._unsaid)
            self._unsaid = 0
        log.info(
            "{event}: {client} as {user}: {what!r}",
            event=event,
            client=client.name,
            user=printable(client.user or "nobody"),
            what=cut(what),
        )
