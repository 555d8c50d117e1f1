"""Servers under measurement: started as processes, found ready, watched, ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import frozen

READY_TIMEOUT = 20.0
"""Seconds in which a server must accept its first connection."""


@frozen
class Server:
    """A running server, its process and its ports on loopback."""

    name: str
    pid: int
    tcp_port: int
    udp_port: int

    def connect(self) -> socket.socket:
        """Open a TCP connection that answers within 30 s or fails."""
        return socket.create_connection(("127.0.0.1", self.tcp_port), timeout=30)

    def resident(self) -> int:
        """Give the bytes of memory that the process holds."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


def ours(tcp_port: int, udp_port: int) -> list[str]:
    """Give the command of the service as an operator starts it."""
    twistd = str(Path(sys.executable).with_name("twistd"))
    ports = [f"--tcp-port={tcp_port}", f"--udp-port={udp_port}"]
    return [twistd, "-n", "--pidfile=", "net", *ports]


def plain(tcp_port: int, udp_port: int) -> list[str]:
    """Give the command of plain Twisted: LineOnlyReceiver, DatagramProtocol."""
    return [sys.executable, "-m", "benchmarks.rivals", str(tcp_port), str(udp_port)]


@contextmanager
def running(name: str, core: int | None = None) -> Iterator[Server]:
    """
    Run the server of this name (``ours`` or ``plain``) until the block ends.

    :param core: the processor that it is pinned to; None for any that this process may use.
    """
    tcp_port, udp_port = _free_ports()
    command = {"ours": ours, "plain": plain}[name](tcp_port, udp_port)
    root = Path(__file__).resolve().parent.parent
    process = subprocess.Popen(
        command, cwd=root, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        # Ahead of other programs, where the system lets us: they are not what is measured.
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, process.pid, -15)
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        server = Server(name, process.pid, tcp_port, udp_port)
        _wait_until_ready(server, process)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_ports() -> tuple[int, int]:
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        udp.bind(("127.0.0.1", 0))
        return tcp.getsockname()[1], udp.getsockname()[1]


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{server.name} ended with status {process.returncode}")
        try:
            server.connect().close()
            return
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise RuntimeError(f"{server.name} does not listen after {READY_TIMEOUT:g} s")
