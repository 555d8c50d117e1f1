"""The subcommands of ``twisted-net``. No name is public: it is a program, not a library."""

from __future__ import annotations
