"""Retained messages in a file outlive the process of the service."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from tests.live.processes import Running, command_line, exchange


async def test_restart(tmp_path: Path, reactor: Any) -> None:
    """What was retained before a restart is given to who subscribes after it."""
    words = command_line("twisted-net", "epoll", "--tcp-port=0", "--udp-enabled=false")
    words += ["--topics-file=retained.db"]
    for line, wanted in (
        (b'RETAIN config.a {"rate": 5}\n', {"command": "RETAIN"}),
        (b"SUBSCRIBE config.*\n", {"message": {"rate": 5}, "retained": True}),
    ):
        async with Running(reactor, words, tmp_path) as process:
            tcp = await process.logged(r"listening on [\d.]+:(\d+) \(tcp\)")
            answers = [json.loads(one) for one in (await exchange(int(tcp[1]), line)).splitlines()]
            process.signal(signal.SIGTERM)
            assert (await process.ended()).status == 0
        assert answers[-1] | wanted == answers[-1]


async def test_file_that_cannot_be_used(tmp_path: Path, reactor: Any) -> None:
    """A file that is no database ends the start, with its name."""
    (tmp_path / "retained.db").write_bytes(b"no database" * 1000)
    words = command_line("twisted-net", "epoll", "--tcp-port=0", "--udp-enabled=false")
    async with Running(reactor, [*words, "--topics-file=retained.db"], tmp_path) as process:
        ended = await process.ended()
    assert ended.status == 1
    assert "topics.file: retained.db: file is not a database" in ended.stderr
