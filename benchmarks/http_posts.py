"""
Whether POSTs reach the servers that there are: ``python -m benchmarks.http_posts [name ...]``.

A thousand POSTs of 1 KB, some at a time, over connections that stay open as long as the server
lets them, to http.server and wsgiref of Python's library, a server of HTTP/1.0 that closes each
connection, nginx, haproxy, uvicorn, gunicorn and Node, each in a process of its own on loopback.
Retries are off: whatever fails is counted. Those that are not installed are named; a process that
ends with 1 had failures.
"""

from __future__ import annotations

import argparse
import shutil
import socketserver
import sys
import tempfile
import wsgiref.simple_server
from collections import Counter
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from benchmarks.options import bounded_number
from benchmarks.servers import free_ports, started
from twisted_net.errors import FetchError
from twisted_net.http import Client, HttpSettings
from twisted_net.http.retry import CircuitBreakerSettings, RetryPolicy

HOST = "127.0.0.1"
BODY = b"x" * 1024

NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log stderr crit;
events {{ }}
http {{
    access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    server {{
        listen {host}:{port}; keepalive_requests 100;
        location / {{ proxy_pass http://{host}:{port}/echo; proxy_http_version 1.0; }}
        location /echo {{ return 200 "posted"; }}
    }}
}}
"""

HAPROXY = """
defaults
    mode http
    timeout client 5s
    timeout server 5s
    timeout connect 5s
frontend front
    bind {host}:{port}
    http-request return status 200 content-type text/plain string "posted"
"""

NODE = """
require("http").createServer((request, response) => {{
    let length = 0;
    request.on("data", data => length += data.length);
    request.on("end", () => response.end(length === {length} ? "posted" : "cut"));
}}).listen({port}, "{host}");
"""


def answer(length: int) -> bytes:
    """Return what a server answers that has read a body of this length."""
    return b"posted" if length == len(BODY) else b"cut"


class Handler(BaseHTTPRequestHandler):
    """Reads the body; HTTP/1.0, as http.server has it by default."""

    def do_POST(self) -> None:
        """Answer a POST."""
        said = answer(len(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        """Log nothing."""


class KeepingHandler(Handler):
    """The same with connections that stay open."""

    protocol_version = "HTTP/1.1"


class OldHandler(socketserver.StreamRequestHandler):
    """An HTTP/1.0 server that says no length and closes each connection."""

    def handle(self) -> None:
        """Answer one request."""
        length = 0
        for line in iter(self.rfile.readline, b"\r\n"):
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + answer(len(self.rfile.read(length))))


class OldServer(socketserver.ThreadingTCPServer):
    """Serves with :class:`OldHandler`."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
    """Answer as a WSGI application."""
    said = answer(len(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(said)))])
    return [said]


async def asgi(scope: Any, receive: Any, send: Any) -> None:  # Any: as ASGI has it
    """Answer as an ASGI application."""
    if scope["type"] != "http":
        return
    length, more = 0, True
    while more:
        message = await receive()
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": answer(length)})


class QuietWsgi(wsgiref.simple_server.WSGIRequestHandler):
    """Logs nothing."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        """Log nothing."""


def serve(name: str, port: int) -> None:
    """Be one of the servers of Python's library, until the process ends."""
    server: socketserver.BaseServer
    if name == "wsgiref":
        server = wsgiref.simple_server.make_server(HOST, port, application, handler_class=QuietWsgi)
    elif name == "HTTP/1.0":
        server = OldServer((HOST, port), OldHandler)
    else:
        kind = ThreadingHTTPServer if "threads" in name else HTTPServer
        kind.request_queue_size = 128
        server = kind((HOST, port), KeepingHandler if "threads" in name else Handler)
    server.serve_forever()


@frozen
class Kind:
    """
    A server.

    :param command: returns its command line for a folder and a port.
    :param needs: the program or the module that may be missing.
    """

    command: Callable[[Path, int], list[str]]
    needs: str = ""

    @property
    def missing(self) -> bool:
        """Whether it is not installed."""
        return bool(self.needs) and not (shutil.which(self.needs) or find_spec(self.needs))


def library(name: str) -> Kind:
    """Return a server of Python's library."""
    return Kind(lambda _, port: [sys.executable, "-m", __spec__.name, "--serve", name, str(port)])


def configured(program: str, text: str, *options: str) -> Kind:
    """Return a server with a configuration file."""

    def command(folder: Path, port: int) -> list[str]:
        file = folder / "configuration"
        file.write_text(text.format(folder=folder, host=HOST, port=port, length=len(BODY)))
        return [program, *options, str(file)]

    return Kind(command, program)


def python(module: str, *arguments: str) -> Kind:
    """Return a server that is a module."""

    def command(folder: Path, port: int) -> list[str]:
        return [sys.executable, "-m", module, *(each.format(port=port) for each in arguments)]

    return Kind(command, module)


SERVERS = {
    "http.server": library("http.server"),
    "http.server, threads": library("http.server, threads"),
    "wsgiref": library("wsgiref"),
    "HTTP/1.0": library("HTTP/1.0"),
    "nginx": configured("nginx", NGINX, "-e", "stderr", "-c"),
    "haproxy": configured("haproxy", HAPROXY, "-q", "-db", "-f"),
    "uvicorn": python(
        "uvicorn", "--port={port}", "--log-level=critical", "benchmarks.http_posts:asgi"
    ),
    "gunicorn": python(
        "gunicorn",
        f"--bind={HOST}:{{port}}",
        "--log-level=critical",
        "--worker-class=gthread",
        "--threads=8",
        "benchmarks.http_posts:application",
    ),
    "node": configured("node", NODE),
}


async def post(reactor: Any, port: int, count: int, at_once: int, seen: Counter[str]) -> None:
    """Make the POSTs, and count what became of them."""
    settings = HttpSettings(
        max_per_origin=at_once,
        retry=RetryPolicy(retries=0),
        breaker=CircuitBreakerSettings(failures=None),
    )
    async with Client(reactor, settings) as client:

        async def one() -> None:
            response = await client.post(f"http://{HOST}:{port}/", data=BODY)
            seen["posted" if response.body == b"posted" else f"{response.status}"] += 1

        calls: Iterable[Callable[[], Any]] = (one for _ in range(count))
        for result in await client.gather(calls, limit=at_once):
            if isinstance(result, FetchError):
                seen[f"{type(result).__name__}: {result.args[0]}"] += 1


def main() -> None:
    """POST to each, and print what became of it."""
    parser = argparse.ArgumentParser(description=str(__doc__).strip().split("\n", 1)[0])
    add = parser.add_argument
    add("names", nargs="*", metavar="name", help=", ".join(SERVERS))
    add("--count", type=bounded_number(int, 1, 1_000_000), default=1000)
    add("--at-once", type=bounded_number(int, 1, 1000), default=8)
    options = parser.parse_args()
    if unknown := set(options.names) - set(SERVERS):
        parser.error(f"there is no server {min(unknown)}; there are {', '.join(SERVERS)}")
    failures = 0

    async def all_servers(reactor: Any) -> None:
        nonlocal failures
        for name in options.names or SERVERS:
            if SERVERS[name].missing:
                print(f"{name:24}{SERVERS[name].needs} is not installed")
                continue
            seen: Counter[str] = Counter()
            port, _ = free_ports()
            with tempfile.TemporaryDirectory() as folder:
                command = SERVERS[name].command(Path(folder), port)
                with started(name, command, port):
                    await post(reactor, port, options.count, options.at_once, seen)
            posted = seen.pop("posted", 0)
            print(f"{name:24}{posted:8} of {options.count}", *seen.items(), flush=True)
            failures += options.count - posted

    react(lambda reactor: Deferred.fromCoroutine(all_servers(reactor)))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        main()
