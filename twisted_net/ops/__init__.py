"""What an operator sees: latency, slow log, monitors, audit, process figures."""

from __future__ import annotations
