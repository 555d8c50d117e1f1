"""
The servers that :mod:`benchmarks.idle` compares ours with, each the plain way to write it.

``python -m benchmarks.idle_rivals NAME PORT FOLDER`` runs one; with ``-tls`` at the end of its name
it uses the certificate in that folder. All do the work of :mod:`benchmarks.rivals` for a line.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.protocol import ServerFactory

from benchmarks.rivals import BACKLOG, AsyncLines, Lines, work


def run_twisted(port: int, pair: tuple[str, str] | None) -> None:
    """Serve lines by Twisted's LineReceiver."""
    from twisted.internet import reactor as installed
    from twisted.internet.ssl import DefaultOpenSSLContextFactory

    reactor: Any = installed  # Any: it is many interfaces at once
    factory = ServerFactory()
    factory.protocol = Lines
    if pair is None:
        reactor.listenTCP(port, factory, backlog=BACKLOG, interface="127.0.0.1")
    else:
        certificate, key = pair
        options = DefaultOpenSSLContextFactory(key, certificate)
        reactor.listenSSL(port, factory, options, backlog=BACKLOG, interface="127.0.0.1")
    reactor.run()


async def serve_uvloop(port: int, context: ssl.SSLContext | None) -> None:
    """Serve lines by a Protocol of asyncio."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(AsyncLines, "127.0.0.1", port, backlog=BACKLOG, ssl=context)
    await server.serve_forever()


async def serve_websockets(port: int, context: ssl.SSLContext | None) -> None:
    """Serve text messages by the library websockets."""
    from websockets.asyncio.server import ServerConnection, serve
    from websockets.exceptions import ConnectionClosed

    async def answer(client: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            async for message in client:
                line = message.encode() if isinstance(message, str) else message
                await client.send(work.answer(line).decode())

    async with serve(
        answer, "127.0.0.1", port, ssl=context, backlog=BACKLOG, compression=None
    ) as server:
        await server.serve_forever()


async def serve_aiohttp(port: int, context: ssl.SSLContext | None) -> None:
    """Serve text messages by aiohttp."""
    from aiohttp import web

    async def answer(request: web.Request) -> web.WebSocketResponse:
        client = web.WebSocketResponse(compress=False)
        await client.prepare(request)
        async for message in client:
            await client.send_str(work.answer(message.data.encode()).decode())
        return client

    application = web.Application()
    application.add_routes([web.get("/", answer)])
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context, backlog=BACKLOG).start()
    await asyncio.Event().wait()


def main(name: str, port: str, folder: str) -> None:
    """Run one of them on loopback."""
    name, _, secure = name.partition("-")
    pair = (f"{folder}/cert.pem", f"{folder}/key.pem") if secure else None
    if name == "twisted":
        run_twisted(int(port), pair)
        return
    context = None
    if pair is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pair)
    run: Callable[..., object] = asyncio.run
    serve: Callable[..., Any] = serve_websockets if name == "websockets" else serve_aiohttp
    if name == "uvloop":
        import uvloop

        run, serve = uvloop.run, serve_uvloop
    with suppress(KeyboardInterrupt):
        run(serve(int(port), context))


if __name__ == "__main__":
    main(*sys.argv[1:])
