"""
Operations: latency, long turns, slow log, monitors, audit log, figures of the process.

The names below are public; all other modules and names are internal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_net.ops.audit import Audit as Audit
    from twisted_net.ops.instruments import Instruments as Instruments
    from twisted_net.ops.latency_probe import LatencyProbe as LatencyProbe
    from twisted_net.ops.long_turns import LatencySettings as LatencySettings
    from twisted_net.ops.long_turns import LongTurns as LongTurns
    from twisted_net.ops.slowlog import SlowLog as SlowLog
    from twisted_net.ops.slowlog import SlowLogSettings as SlowLogSettings
    from twisted_net.ops.turn_watch import TurnWatch as TurnWatch
else:
    from twisted_net import lazy_exports

    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "audit": ["Audit"],
            "instruments": ["Instruments"],
            "latency_probe": ["LatencyProbe"],
            "long_turns": ["LatencySettings", "LongTurns"],
            "slowlog": ["SlowLog", "SlowLogSettings"],
            "turn_watch": ["TurnWatch"],
        },
    )
