"""
Event-driven network server and toolkit on Twisted: commands over TCP, UDP, CoAP; an HTTP client.

Each folder names what is public in its ``__init__.py``. The modules ``errors``,
``broadcasts``, ``testing`` and ``quiet_reactor`` are public, too; all others are internal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module

__version__ = "0.1.0"


def lazy_exports(
    package: str, names: Mapping[str, Iterable[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """
    Return ``__getattr__``, ``__dir__`` and ``__all__`` for the ``__init__`` of a package.

    Importing the package then stays cheap: ``twisted_net.udp`` can be used without importing
    treq, which only ``twisted_net.http`` needs. Type checkers read the names from imports under
    ``TYPE_CHECKING``; a test compares the two lists.

    :param package: its ``__name__``.
    :param names: the public names, by the submodule that defines them.
    """
    homes = {name: module for module, exported in names.items() for name in exported}

    def get(name: str) -> object:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{home}"), name)

    public = sorted(homes)
    return get, lambda: public, public
