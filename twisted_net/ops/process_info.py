"""Process information: versions, memory, processor time, descriptors."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from twisted.copyright import version as twisted_version

_RESIDENT = Path("/proc/self/statm")


@cache
def package_version() -> str:
    """
    Return the version of this package, or ``unknown`` if it is not installed.

    It is read once, as the files may be those of another version later.
    """
    try:
        return version("twisted_net")
    except PackageNotFoundError:
        return "unknown"


def versions(reactor: object) -> dict[str, object]:
    """Return the versions of the parts, the kind of reactor, and the process ID."""
    return {
        "version": package_version(),
        "twisted": twisted_version,
        "python": platform.python_version(),
        "reactor": type(reactor).__name__,
        "process": os.getpid(),
    }


def usage() -> Mapping[str, object]:
    """
    Return the resources that the process uses.

    ``resident`` and ``resident_peak`` are bytes, ``user`` and ``system`` seconds of processor
    time, ``descriptors`` the limit of open ones. Without ``/proc``, ``resident`` is None.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    # Linux counts KiB here, macOS bytes (getrusage(2) of each).
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "resident": _resident(),
        "resident_peak": used.ru_maxrss * unit,
        "user": round(used.ru_utime, 3),
        "system": round(used.ru_stime, 3),
        "descriptors": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    }


def _resident() -> int | None:
    try:
        pages = int(_RESIDENT.read_text().split()[1])
    except OSError:
        return None
    return pages * resource.getpagesize()
