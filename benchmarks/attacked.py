"""The service that is attacked: started as an operator does it, in a folder of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.attack_rows import Attack
from benchmarks.servers import Server, free_ports, started
from twisted_net.auth.passwords import hash_password
from twisted_net.auth.users import hash_token

TWISTD = str(Path(sys.executable).with_name("twistd"))
"""The twistd that is attacked, unless another is named."""

PROBE_TOKEN = "the-token-of-the-other-client"
MEMBER_TOKEN = "the-token-of-a-member"
DEAF_TOKEN = "the-token-of-one-who-may-hear-nothing"
NAME, PASSWORD = "ann", "correct horse battery staple"
"""The user who logs in with a password."""

NAME_SERVER = "127.53.53.53"
"""Where nobody answers what a server with a dead name server asks."""

SLOW_COMMANDS = '''
"""A command that blocks a thread, and one that waits."""

import time

from twisted.internet.defer import Deferred

from twisted_net.commands import Commands

commands = Commands()


@commands.command(blocking=True)
def slow(seconds: float) -> str:
    """Sleep."""
    time.sleep(seconds)
    return "done"


@commands.command()
async def wait() -> None:
    """Wait for nothing."""
    await Deferred()
'''


class CannotRun(Exception):
    """An attack cannot be run here; the message says why, and how it can."""


def users() -> str:
    """Return a users file: who measures, who is guessed, and members of the crowd."""
    root = hash_password("sesame", os.urandom(16))
    ann = hash_password(PASSWORD, os.urandom(16))
    return (
        f'[probe]\ncommands = ["*"]\ntokens = ["{hash_token(PROBE_TOKEN)}"]\n'
        f'[root]\npassword = "{root}"\n'
        f'[{NAME}]\npassword = "{ann}"\n'
        f'[member]\ntokens = ["{hash_token(MEMBER_TOKEN)}"]\n'
        f'[deaf]\nsubscribe = []\ntokens = ["{hash_token(DEAF_TOKEN)}"]\n'
    )


@contextmanager
def serving(
    attack: Attack, core: int | None, twistd: Sequence[str]
) -> Iterator[tuple[Server, int]]:
    """
    Run the service for the block; yield it with the port that is attacked.

    :param core: the processor that it is pinned to; None for any.
    :param twistd: the program that starts it, with options of its own.
    :raises CannotRun: if the attack needs what this system does not let us have.
    """
    tcp_port, _ = free_ports()
    other, _ = free_ports()
    with ExitStack() as opened:
        folder = opened.enter_context(tempfile.TemporaryDirectory())
        secret = Path(folder, "users.toml")
        secret.touch(0o600)
        secret.write_text(users())
        Path(folder, "slow_commands.py").write_text(SLOW_COMMANDS)
        if "tls" in attack.config:
            certify(folder)
        config = Path(folder, "net.toml")
        config.write_text(attack.config.format(port=tcp_port, other=other, folder=folder))
        command = [*twistd, "-n", "--pidfile=", "net", f"--config={config}"]
        if attack.dead_name_server:
            command = opened.enter_context(dead_name_server(folder, command))
        if attack.hostile_origin:
            opened.enter_context(hostile_origin())
        server = opened.enter_context(
            started("ours", command, tcp_port, 0, core, environment=environment(), cwd=folder)
        )
        yield server, other if attack.other_port else tcp_port


def environment() -> Mapping[str, str]:
    """Return our environment, but for what would make another twistd import our package."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@contextmanager
def dead_name_server(folder: str, command: list[str]) -> Iterator[list[str]]:
    """
    Own a name server that never answers; yield the command in a place where it is the only one.

    The command gets a mount namespace of its own, with its own ``/etc/resolv.conf``: nothing else
    on this machine sees it. It asks a socket of ours, so that nothing leaves this machine.

    :raises CannotRun: without the right to do so.
    """
    how = (
        "run it as root, or with: unshare --map-root-user --net sh -c "
        "'ip link set lo up && python -m benchmarks.attacks dead_name_server'"
    )
    if shutil.which("unshare") is None:
        raise CannotRun("unshare is not installed (Debian: util-linux)")
    resolver = Path(folder, "resolv.conf")
    resolver.write_text(f"nameserver {NAME_SERVER}\n")
    names = Path(folder, "nsswitch.conf")
    names.write_text("hosts: files dns\n")
    places = {resolver: "/etc/resolv.conf", names: "/etc/nsswitch.conf"}
    mounts = [f"mount --bind {ours} {place}" for ours, place in places.items()]
    script = " && ".join([*mounts, 'exec "$@"'])
    within = ["unshare", "--mount", "sh", "-c", script, "sh"]
    with socket.socket(type=socket.SOCK_DGRAM) as unread:
        try:
            unread.bind((NAME_SERVER, 53))
        except OSError as error:
            raise CannotRun(f"{NAME_SERVER}, port 53: {error.strerror}: {how}") from None
        tried = subprocess.run([*within, "true"], capture_output=True, text=True, check=False)
        if tried.returncode:
            raise CannotRun(f"{tried.stderr.strip()}: {how}")
        yield [*within, *command]


@contextmanager
def hostile_origin() -> Iterator[None]:
    """Run the web server of :mod:`benchmarks.hostile_origin` for the block."""
    command = [sys.executable, "-m", "benchmarks.hostile_origin"]
    folder = Path(__file__).resolve().parent.parent
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                raise CannotRun("the hostile web server has not started")
            yield
        finally:
            process.kill()


def certify(folder: str) -> None:
    """Make a certificate for localhost."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", "/CN=localhost", "-keyout", f"{folder}/key.pem"),
            *("-out", f"{folder}/cert.pem"),
        ],
        check=True,
        capture_output=True,
    )
