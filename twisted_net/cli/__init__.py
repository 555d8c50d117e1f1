"""The console script's subcommands."""

from __future__ import annotations
