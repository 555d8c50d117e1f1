"""Applications in a process of the service: started before it accepts, or it does not start."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.live.processes import Running, command_line, exchange

MODULE = '''
from __future__ import annotations

from typing import Annotated

from msgspec import Meta
from twisted.internet.task import deferLater

from twisted_net.config import Record
from twisted_net.service import Application


class ShopSettings(Record, frozen=True):
    shelves: Annotated[int, Meta(ge=1)] = 1


shop = Application("shop", ShopSettings)
broken = Application("broken")
found = {"shelves": 0, "ticks": 0}


@shop.start
async def start(context):
    # Long enough for a client to ask too early.
    await deferLater(context.reactor, 0.5)
    found["shelves"] = context.settings.shelves
    context.every(0.01, tick)
    context.log.info("the shop is open")


def tick():
    found["ticks"] += 1


@shop.stop
def stop():
    print("the shop is closed", flush=True)


@shop.commands.command()
def shelves() -> int:
    """How many there are."""
    return found["shelves"]


@broken.start
async def fail(context):
    await deferLater(context.reactor, 0.1)
    raise ValueError("no shelves")
'''

FREE = ("--tcp-port=0", "--udp-enabled=false")


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """Write the module to a directory of its own."""
    (tmp_path / "shops.py").write_text(MODULE)
    (tmp_path / "net.toml").write_text('commands = ["shops:shop"]\n[app.shop]\nshelves = 7\n')
    return tmp_path


@pytest.mark.parametrize("launcher", ["twistd", "twisted-net"])
async def test_started_before_it_accepts(launcher: str, module: Path, reactor: Any) -> None:
    """Who connects while an application starts is served when it has started."""
    words = command_line(launcher, "epoll", "--config=net.toml", *FREE)
    async with Running(reactor, words, module) as process:
        tcp = await process.logged(r"listening on [\d.]+:(\d+) \(tcp\)")
        answer = json.loads(await exchange(int(tcp[1]), b"SHELVES\n"))
        process.signal(signal.SIGTERM)
        ended = await process.ended()
    assert answer == {"command": "SHELVES", "result": 7}
    assert "[application.shop#info] the shop is open" in ended.stdout
    assert "the shop is closed" in ended.stdout
    assert ended.status == 0


@pytest.mark.parametrize("launcher", ["twistd", "twist", "twisted-net"])
async def test_failing_start(launcher: str, module: Path, reactor: Any) -> None:
    """A start that fails, be it when the reactor runs, ends the process with its message."""
    words = command_line(launcher, "epoll", "--commands=shops:broken", *FREE)
    async with Running(reactor, words, module) as process:
        ended = await process.ended()
    assert ended.status == 1
    assert "application broken cannot start: ValueError: no shelves" in ended.stderr


async def test_mistake_in_its_settings(module: Path, reactor: Any) -> None:
    """The check of the configuration finds mistakes in settings of an application."""
    (module / "net.toml").write_text('commands = ["shops:shop"]\n[app.shop]\nshelves = 0\n')
    words = [command_line("twisted-net", "epoll")[0], "check-config", "--config=net.toml"]
    async with Running(reactor, words, module) as process:
        ended = await process.ended()
    assert ended.status == 1
    assert "app.shop.shelves is 0, must be an integer of at least 1" in ended.stderr
