"""Options of a subcommand that may stand anywhere: before, between and after its arguments."""

# mypy: disallow-untyped-calls=False
# The class of options has no types.

from __future__ import annotations

from collections.abc import Sequence
from getopt import GetoptError, gnu_getopt

from twisted.python.usage import Options, UsageError


class MixedOptions(Options):
    """Options among arguments; ``--`` ends them."""

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse a command line."""
        try:
            found, rest = gnu_getopt(list(options or ()), self.shortOpt, self.longOpt)
        except GetoptError as error:
            raise UsageError(error.msg) from None
        words = []
        for name, value in found:
            takes_value = f"{name[2:]}=" in self.longOpt or f"{name[1:]}:" in self.shortOpt
            words += [name, value] if takes_value else [name]
        super().parseOptions([*words, "--", *rest])
