"""Instruments: what observes the sessions of a server, passed to it as one record."""

from __future__ import annotations

from attrs import Factory, frozen

from twisted_net.config.type_checks import check_arguments
from twisted_net.ops.latency import Latency
from twisted_net.ops.long_turns import LongTurns
from twisted_net.ops.monitor import Monitors
from twisted_net.ops.slowlog import SlowLog
from twisted_net.reasons import Audited, AuditLog


def no_audit(event: str, client: Audited, what: str) -> None:
    """Write nothing: the audit of a server without one."""


@check_arguments
@frozen
class Instruments:
    """
    What observes the sessions of a server. Several servers may share one of these.

    :param audit: called with what happened (``login``, ``refused``, ``command``, ``closed``), the
        client, and more about it in words.
    :param slow_log: the commands that took long.
    :param monitors: the clients that watch the commands of others.
    :param latency: how late the reactor runs its timers, if something measures it.
    :param long_turns: the turns of the reactor that took long, if something measures them.
    """

    audit: AuditLog = no_audit
    slow_log: SlowLog = Factory(SlowLog)
    monitors: Monitors = Factory(Monitors)
    latency: Latency = Factory(Latency)
    long_turns: LongTurns = Factory(LongTurns)
