"""Two network namespaces joined by a cable (veth), as two machines on one link."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.live.programs import program

NEAR, FAR = "near0", "far0"
"""The ends of the cable: of the clients and of the servers."""

NEAR_IPV4, FAR_IPV4 = "10.77.0.1", "10.77.0.2"
NEAR_IPV6, FAR_IPV6 = "fe80::1", "fe80::2"

_numbers = itertools.count()


class Link:
    """
    The two namespaces.

    :param near: name of the namespace of the clients.
    :param far: name of that of the servers.
    """

    def __init__(self, near: str, far: str) -> None:
        self.near = near
        self.far = far

    def near_words(self, *words: str) -> list[str]:
        """Return the command line that runs a program as a client's machine would."""
        return ["ip", "netns", "exec", self.near, *words]

    def far_words(self, *words: str) -> list[str]:
        """Return the command line that runs a program as a server's machine would."""
        return ["ip", "netns", "exec", self.far, *words]


def _ip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


@contextmanager
def linked() -> Iterator[Link]:
    """
    Make two namespaces with a link of IPv4 and link-local IPv6 addresses; leave none of them.

    The test is skipped where namespaces cannot be made, as by a user who is not root.
    """
    if sys.platform != "linux":
        pytest.skip("network namespaces are Linux's")
    program("ip", "iproute2")
    if os.geteuid() != 0:
        pytest.skip("only root can make network namespaces")
    number = next(_numbers)
    near, far = (f"tn-{os.getpid()}-{number}-{end}" for end in ("near", "far"))
    try:
        for name in (near, far):
            made = _ip("netns", "add", name)
            if made.returncode:
                pytest.skip(f"no network namespace can be made: {made.stderr.strip()}")
        cable = _ip(
            *("link", "add", NEAR, "netns", near, "type", "veth"),
            *("peer", "name", FAR, "netns", far),
        )
        if cable.returncode:
            pytest.skip(f"no veth pair can be made: {cable.stderr.strip()}")
        for name, device, ipv4, ipv6 in (
            (near, NEAR, NEAR_IPV4, NEAR_IPV6),
            (far, FAR, FAR_IPV4, FAR_IPV6),
        ):
            for words in (
                # Addresses of our own, as those of the kernel are tentative for a second.
                f"link set {device} addrgenmode none",
                f"addr add {ipv4}/24 dev {device}",
                "link set lo up",
                f"link set {device} up",
                f"-6 addr add {ipv6}/64 dev {device} nodad",
            ):
                done = _ip("-n", name, *words.split())
                assert done.returncode == 0, done.stderr
        yield Link(near, far)
    finally:
        for name in (near, far):
            if Path("/run/netns", name).exists():
                _ip("netns", "del", name)
