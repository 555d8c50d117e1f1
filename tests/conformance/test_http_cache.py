"""The tests of cache-tests.fyi pass, except those recorded with a reason."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.http_cache import PACKAGE, fetch_package
from tests.missing import missing
from tests.patience import PATIENCE


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the unpacked suite."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            missing(f"{program}, which runs the suite's server,")
    try:
        return fetch_package(tmp_path_factory.mktemp("suite"))
    except subprocess.CalledProcessError as error:
        missing(f"{PACKAGE}, which npm does not get ({error.stderr}),")


@pytest.mark.parametrize("kind", ["private", "shared"])
def test_score(suite: Path, kind: str) -> None:
    """Each test passes, or has a recorded reason not to."""
    command = [sys.executable, "-m", "tests.conformance.http_cache", "--suite", str(suite)]
    if kind == "shared":
        command.append("--shared")
    root = Path(__file__).parents[2]
    # A process of its own: pytest-twisted owns the reactor of this one.
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=10 * PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
