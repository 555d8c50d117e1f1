"""
DTLS with software that we did not write: OpenSSL's s_client, and libcoap over OpenSSL and GnuTLS.

Both sides run as processes. A tool that is missing is a reason to skip, but in CI to fail.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import coap_client
from tests.conformance.test_coap import LARGE, run_until
from tests.live.programs import program
from tests.missing import missing
from tests.patience import PATIENCE, wait_until
from tests.ports import free_port
from tests.tcp.issuing import Authority, write_pair

BUILDS = ["openssl", "gnutls"]
"""Of libcoap, by the library that they have for DTLS."""

OUR_SERVICE = """
[tcp]
enabled = false
[udp]
enabled = false
[udp.dtls]
port = {udp}
certificate = "server.pem"
psk = "keys.toml"
[coap]
refresh_interval = 0.3
[coap.dtls]
port = {coap}
certificate = "server.pem"
client_ca = "ca.pem"
psk = "keys.toml"
[auth]
users = "users.toml"
"""

KEY = b"0123456789abcdef".hex()
"""A pre-shared key, which libcoap takes as text."""

CERTIFICATES: dict[str, object] = {"ca": "ca.pem", "certificate": "ann.pem"}


def libcoap(name: str, build: str) -> str:
    """Return the path of one of libcoap's programs, in one of its builds."""
    path = shutil.which(f"{name}-{build}")
    if path is None:
        missing(f"libcoap's {name}-{build} (Debian: libcoap3-bin)")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an authority, a server's certificate, two users' and a users file."""
    made = tmp_path_factory.mktemp("dtls")
    authority = Authority()
    authority.write(made / "ca.pem")
    write_pair(made / "server.pem", authority.issue("localhost"))
    for user in ("ann", "bob"):
        pair = authority.issue(common_names=(user,))
        write_pair(made / f"{user}.pem", pair)
    (made / "users.toml").write_text('[ann]\ncommands = ["*"]\n[bob]\ncommands = ["PING"]\n')
    (made / "users.toml").chmod(0o600)
    (made / "keys.toml").write_text(f'bob = "{KEY}"\n')
    (made / "large").write_text(LARGE)
    return made


NUMBERS = itertools.count()
"""For the names of logs."""


@contextmanager
def running(words: list[str], folder: Path, said: str) -> Iterator[None]:
    """Run a server as a process, once it has said something."""
    log = folder / f"log-{next(NUMBERS)}"
    with log.open("wb") as output:
        server = subprocess.Popen(words, cwd=folder, stdout=output, stderr=output)
    try:

        def has_said_it() -> bool:
            assert server.poll() is None, log.read_text()
            return said in log.read_text()

        wait_until(has_said_it)
        yield
    finally:
        server.terminate()
        server.wait()


class Ours:
    """Our service, as a process."""

    def __init__(self, folder: Path, coap: int, udp: int) -> None:
        self.folder = folder
        self.udp = udp
        self.uri = f"coaps://localhost:{coap}"

    def words(self, build: str, user: str, *words: str) -> list[str]:
        """Return the words by which libcoap's client asks, as a user."""
        pair = ("-c", f"{user}.pem", "-j", f"{user}.pem") if user else ()
        return [libcoap("coap-client", build), "-R", "ca.pem", *pair, *words]

    def ask(self, build: str, user: str, *words: str) -> str:
        """Have libcoap's client ask, as a user; give what it prints."""
        command = self.words(build, user, *words)
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, timeout=2 * PATIENCE, text=True
        )
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def ours(folder: Path) -> Iterator[Ours]:
    """Run our service."""
    coap, udp = free_port(), free_port()
    (folder / "net.toml").write_text(OUR_SERVICE.format(coap=coap, udp=udp))
    words = [sys.executable, "-m", "twisted_net", "run", "-c", "net.toml"]
    with running(words, folder, f"127.0.0.1:{coap} (coap+dtls)"):
        yield Ours(folder, coap, udp)


@pytest.mark.parametrize("build", BUILDS)
def test_libcoap_client(ours: Ours, build: str) -> None:
    """coap-client reads, posts and lists; the name in its certificate is its user."""
    uri = ours.uri
    assert ours.ask(build, "ann", "-m", "get", f"{uri}/ping") == "PONG\n"
    assert ours.ask(build, "ann", "-N", "-m", "get", f"{uri}/ping") == "PONG\n"
    assert ours.ask(build, "ann", "-m", "post", "-e", "a%20b", f"{uri}/echo") == "a b\n"
    assert "</time>;" in ours.ask(build, "ann", "-m", "get", f"{uri}/.well-known/core")
    assert '"user":"ann"' in ours.ask(build, "ann", "-m", "post", f"{uri}/clients")
    assert ours.ask(build, "bob", "-m", "get", f"{uri}/ping") == "PONG\n"
    assert "4.03 not permitted: TIME" in ours.ask(build, "bob", "-m", "get", f"{uri}/time")
    # As for a command that is not permitted: the answer does not show which commands exist.
    assert "4.03 not permitted: NOPE" in ours.ask(build, "bob", "-m", "post", f"{uri}/nope")


@pytest.mark.parametrize("build", BUILDS)
def test_libcoap_client_blocks(ours: Ours, build: str) -> None:
    """coap-client sends a hundred kilobytes over DTLS, and gets them back."""
    words = ["-m", "post", "-f", "large", "-o", f"back-{build}", f"{ours.uri}/echo"]
    ours.ask(build, "ann", *words)
    assert (ours.folder / f"back-{build}").read_text() == LARGE


@pytest.mark.parametrize("build", BUILDS)
def test_libcoap_client_observes(ours: Ours, build: str) -> None:
    """coap-client observes the figures over DTLS."""
    words = ours.words(build, "ann", "-w", "-s", "3600", "-m", "get", f"{ours.uri}/stats")
    said = run_until(4, '"command":"STATS"', *words, folder=ours.folder)
    assert said.count('"command":"STATS"') >= 4


def test_libcoap_client_loses(ours: Ours) -> None:
    """
    Where coap-client loses some of the handshake and of the request, it is answered still.

    Over GnuTLS libcoap 4.3.1 does not recover: of a flight that comes again it reads a part.
    """
    words = ["-l", "2,6,8", "-B", "30", "-m", "post", "-e", "late", f"{ours.uri}/echo"]
    assert ours.ask("openssl", "ann", *words) == "late\n"


@pytest.mark.parametrize("build", BUILDS)
def test_libcoap_client_without_certificate(ours: Ours, build: str) -> None:
    """coap-client without a certificate is not let in."""
    assert "PONG" not in ours.ask(build, "", "-B", "3", "-m", "get", f"{ours.uri}/ping")


@pytest.mark.parametrize("build", BUILDS)
def test_libcoap_client_with_a_key(ours: Ours, build: str) -> None:
    """coap-client has a pre-shared key; its identity is its user (RFC 7252 §9.1.3.1)."""
    for key, wait, answered in (("0123456789abcdef", "60", True), ("0123456789abcdeX", "3", False)):
        words = ["-u", "bob", "-k", key, "-B", wait, "-m", "get"]
        command = [libcoap("coap-client", build), *words, f"{ours.uri}/ping"]
        done = subprocess.run(command, capture_output=True, timeout=2 * PATIENCE, text=True)
        assert ("PONG" in done.stdout) is answered, done
    command = [libcoap("coap-client", build), "-u", "bob", "-k", "0123456789abcdef", "-m", "get"]
    refused = subprocess.run([*command, f"{ours.uri}/time"], capture_output=True, text=True)
    assert "4.03 not permitted: TIME" in refused.stdout + refused.stderr


@pytest.mark.parametrize("suite", ["PSK-AES128-GCM-SHA256", "PSK-AES128-CCM8:@SECLEVEL=0"])
def test_openssl_with_a_key(ours: Ours, suite: str) -> None:
    """s_client has a pre-shared key, with the cipher of all devices too."""
    client = [program("openssl", "openssl"), "s_client", "-connect", f"127.0.0.1:{ours.udp}"]
    words = ("-dtls1_2", "-psk_identity", "bob", "-psk", KEY, "-cipher", suite)
    said = run_until(1, "PONG", *client, *words, folder=ours.folder, data=b"ping\n", ends=True)
    assert "PONG" in said


def s_client(ours: Ours, answer: str, *words: str, data: bytes = b"ping\n") -> str:
    """
    Let OpenSSL's client say one datagram to the datagram server.

    :param answer: ends it once it has shown this; a failure ends it, too.
    :return: all that it has said.
    """
    client = [program("openssl", "openssl"), "s_client", "-connect", f"127.0.0.1:{ours.udp}"]
    words = (*client, "-CAfile", "ca.pem", "-verify_return_error", *words)
    return run_until(1, answer, *words, folder=ours.folder, data=data, ends=True)


def test_openssl(ours: Ours) -> None:
    """s_client checks our certificate for its name, and is answered."""
    said = s_client(ours, "+00:00", "-dtls1_2", "-verify_hostname", "localhost", data=b"time\n")
    assert "Verify return code: 0 (ok)" in said
    assert "Protocol  : DTLSv1.2" in said
    assert "+00:00" in said


def test_openssl_small_mtu(ours: Ours) -> None:
    """s_client with a small MTU, whose ClientHello comes in fragments, is answered."""
    said = s_client(ours, "PONG", "-dtls1_2", "-mtu", "300")
    assert "PONG" in said


def test_openssl_of_old(ours: Ours) -> None:
    """DTLS 1.0 is refused."""
    said = s_client(ours, "PONG", "-dtls1", "-cipher", "ALL:@SECLEVEL=0")
    assert "PONG" not in said
    assert "alert protocol version" in said


def test_openssl_weak(ours: Ours) -> None:
    """Without forward secrecy no cipher is agreed on."""
    said = s_client(ours, "PONG", "-dtls1_2", "-cipher", "AES128-GCM-SHA256")
    assert "PONG" not in said
    assert "alert handshake failure" in said


@contextmanager
def coap_server(build: str, folder: Path, key: str = "") -> Iterator[str]:
    """Run libcoap's server with DTLS, with certificates or a pre-shared key, and give its URI."""
    server = libcoap("coap-server", build)
    port = free_port()
    pair = ["-k", key] if key else ["-c", "server.pem", "-j", "server.pem", "-R", "ca.pem"]
    words = [server, "-A", "127.0.0.1", "-p", str(port), *pair, "-d", "5", "-v", "7"]
    with running(words, folder, f":{port + 1}"):
        yield f"coaps://localhost:{port + 1}"


def ask(folder: Path, uri: str, *steps: tuple[str, str, str]) -> Any:  # Any: decoded JSON
    """Make requests with our client: method, path, payload; return the responses."""
    words = coap_client.command(uri, steps, tls=CERTIFICATES)
    done = subprocess.run(words, cwd=folder, capture_output=True, timeout=2 * PATIENCE, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("build", BUILDS)
def test_our_client(folder: Path, build: str) -> None:
    """Our client reads, writes in blocks, and observes what coap-server has, over DTLS."""
    with coap_server(build, folder) as uri:
        index, put, got, late, states, missed = ask(
            folder,
            uri,
            ("GET", "/", ""),
            ("PUT", "/example_data", LARGE),
            ("GET", "/example_data", ""),
            ("GET", "/async?1", ""),
            ("OBSERVE", "/time", ""),
            ("GET", "/nope", ""),
        )
    assert index[0] == 69
    assert put[0] in (65, 68)
    assert got == [69, LARGE]
    assert late[0] == 69
    assert len(set(states)) == 3
    assert missed[0] == 132


@pytest.mark.parametrize("build", BUILDS)
def test_our_client_with_a_key(folder: Path, build: str) -> None:
    """Our client has a pre-shared key, which coap-server knows."""
    keys: dict[str, object] = {"psk": "keys.toml"}
    steps = (("GET", "/time", ""), ("PUT", "/example_data", LARGE), ("GET", "/nope", ""))
    with coap_server(build, folder, "0123456789abcdef") as uri:
        words = coap_client.command(uri, steps, tls=keys)
        done = subprocess.run(
            words, cwd=folder, capture_output=True, timeout=2 * PATIENCE, text=True
        )
    got, put, missed = (code for code, _ in json.loads(done.stdout))
    assert got == 69
    assert put in (65, 68)
    assert missed == 132


@pytest.mark.parametrize("build", BUILDS)
def test_our_client_refuses(folder: Path, build: str) -> None:
    """Our client refuses a coap-server whose certificate is not for the name in the URI."""
    with coap_server(build, folder) as uri:
        wrong = uri.replace("localhost", "127.0.0.1")
        words = coap_client.command(wrong, [("GET", "/", "")], tls=CERTIFICATES)
        done = subprocess.run(
            words, cwd=folder, capture_output=True, timeout=2 * PATIENCE, text=True
        )
    assert done.returncode != 0
    assert "the server's certificate is not for 127.0.0.1" in done.stderr
