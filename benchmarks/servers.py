"""Servers under measurement: started as processes, found ready, watched, ended."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import frozen

from benchmarks.contestants import CONTESTANTS

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

    def peak(self) -> int:
        """Give the most bytes of memory that it has held since :meth:`forget_peak`."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    def forget_peak(self) -> None:
        """Begin to look for the most memory anew."""
        # proc(5): 5 resets the peak to what is held now.
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def times(self) -> tuple[float, float]:
        """
        Give the seconds that it ran, and those that its first thread, the reactor's, waited for
        a processor to be free.
        """
        waited = Path(f"/proc/{self.pid}/schedstat").read_text().split()[1]
        return processor_time(self.pid), int(waited) / 1e9


def processor_time(pid: int) -> float:
    """
    Give the seconds of processor time that a process has used, its threads and children counted.

    In nanoseconds where the kernel has /proc/PID/schedstat, else in the hundredths of
    /proc/PID/stat.
    """
    used = 0.0
    exact = Path(f"/proc/{pid}/schedstat").exists()
    if not exact:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        used += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    for task in Path(f"/proc/{pid}/task").iterdir():
        # A thread or a child may end meanwhile, and few kernels list no children.
        with suppress(FileNotFoundError, ProcessLookupError):
            if exact:
                used += int((task / "schedstat").read_text().split()[0]) / 1e9
            used += sum(map(processor_time, map(int, (task / "children").read_text().split())))
    return used


@contextmanager
def running(name: str, core: int | None = None) -> Iterator[Server]:
    """
    Run the server of this name in :data:`~benchmarks.contestants.CONTESTANTS`, for the block.

    :param core: the processor that it is pinned to; None for any that this process may use.
    """
    tcp_port, udp_port = free_ports()
    words = CONTESTANTS[name].words(tcp_port, udp_port)
    with started(name, words, tcp_port, udp_port, core) as server:
        yield server


@contextmanager
def started(
    name: str,
    command: list[str],
    tcp_port: int,
    udp_port: int = 0,
    core: int | None = None,
    look_every: float = 0.05,
    cwd: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """
    Run the server that this command starts at these ports, until the block ends.

    :param look_every: seconds between two looks whether it accepts connections.
    :param cwd: its working directory; by default that of the checkout.
    :param environment: its environment; by default ours.
    """
    process = subprocess.Popen(
        command,
        cwd=cwd or Path(__file__).resolve().parent.parent,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        # Ahead of other programs, where the system lets us: they are not what is measured.
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, process.pid, -15)
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        server = Server(name, process.pid, tcp_port, udp_port)
        _wait_until_ready(server, process, look_every)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_ports() -> tuple[int, int]:
    """Give a TCP and a UDP port that nobody listens on now."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        udp.bind(("127.0.0.1", 0))
        return tcp.getsockname()[1], udp.getsockname()[1]


def core_for_the_server() -> int | None:
    """Set one processor aside for the server, and leave the others to this process; None of one."""
    cores = os.sched_getaffinity(0)
    if len(cores) == 1:
        return None
    core = min(cores)
    os.sched_setaffinity(0, cores - {core})
    return core


def raise_descriptor_limit() -> int:
    """Allow this process and its children as many open files as it may have; give their number."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes], look_every: float) -> None:
    deadline = time.monotonic() + READY_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{server.name} ended with status {process.returncode}")
        try:
            server.connect().close()
            return
        except ConnectionRefusedError:
            time.sleep(look_every)
    raise RuntimeError(f"{server.name} does not listen after {READY_TIMEOUT:g} s")
