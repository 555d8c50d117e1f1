"""Preload: imports and reads at the start what a service would otherwise load at its first use."""

from __future__ import annotations

from importlib import import_module

from twisted.python.failure import Failure

from twisted_net.net.charsets import load_codecs
from twisted_net.ops.process_info import package_version
from twisted_net.service.config import Config

MODULES = (
    # Names of hosts: Python's own look-up, and ours.
    *("encodings.idna", "encodings.punycode", "stringprep", "idna.uts46data"),
)
"""Modules that the service needs, and that nothing imports when it is assembled."""

OPTIONAL = ("argon2", "argon2.exceptions", "argon2.profiles")
"""Modules of extras: users may be added whose hashes need them."""

CACHE_FILE = ("twisted_net.http.cache.sqlite_store",)
"""Modules that only a cache in a file needs."""


def preload(config: Config) -> None:
    """
    Import, or read, what the service may need while it runs.

    By then there may be no file descriptor left to import by; the files of the package may have
    been replaced by those of another version, or lie outside of the directory that the process
    can see (``chroot``). And a thread that imports delays all clients.
    """
    wanted = [*MODULES, *(CACHE_FILE if config.http.cache.file else ())]
    for name in wanted:
        import_module(name)
    for name in OPTIONAL:
        try:
            import_module(name)
        except ImportError:
            continue
    load_codecs()
    package_version()
    # Formatting a traceback imports something, in each version of Python something else.
    try:
        raise LookupError
    except LookupError:
        Failure().getTraceback()
