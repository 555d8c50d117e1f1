"""The tests of cache-tests.fyi pass, but for those that are recorded with a reason."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.http_cache import PACKAGE, fetch_package

pytestmark = [
    pytest.mark.skipif(
        bool(os.environ.get("CI") or os.environ.get("SKIP_HTTP_CACHE_SUITE")),
        reason="it fetches a package from the network",
    ),
    pytest.mark.skipif(
        shutil.which("node") is None or shutil.which("npm") is None, reason="Node is not there"
    ),
]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the unpacked suite."""
    try:
        return fetch_package(tmp_path_factory.mktemp("suite"))
    except subprocess.CalledProcessError as error:
        pytest.skip(f"npm does not get {PACKAGE}: {error.stderr}")


@pytest.mark.parametrize("kind", ["private", "shared"])
def test_score(suite: Path, kind: str) -> None:
    """Each test passes, or has a recorded reason not to."""
    command = [sys.executable, "-m", "tests.conformance.http_cache", "--suite", str(suite)]
    if kind == "shared":
        command.append("--shared")
    root = Path(__file__).parents[2]
    # A process of its own: pytest-twisted owns the reactor of this one.
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
