"""Users, what each of them may do, and how passwords and tokens are kept."""

from __future__ import annotations
