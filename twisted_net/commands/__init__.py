"""Commands: the registry that declares and dispatches them, and the standard sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_net.commands.registry import Command as Command
    from twisted_net.commands.registry import Commands as Commands
    from twisted_net.commands.registry import Fields as Fields
    from twisted_net.commands.registry import Proceed as Proceed
    from twisted_net.commands.registry import Request as Request
    from twisted_net.commands.standard import acknowledge as acknowledge
    from twisted_net.commands.standard import standard_commands as standard_commands
else:
    from twisted_net import lazy_exports

    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "registry": ["Command", "Commands", "Fields", "Proceed", "Request"],
            "standard": ["acknowledge", "standard_commands"],
        },
    )
