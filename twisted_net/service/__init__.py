"""Assembly: the service that a configuration describes, its listeners, logins and commands."""

from __future__ import annotations
