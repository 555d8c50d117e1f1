"""The tests of TLS pass on any date: their certificates are valid from when they are made."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.live.programs import program
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[2]
YEAR = 365 * 86_400.0
TESTS = (
    *("tests/net/test_certificates.py", "tests/tcp/test_tls.py", "tests/dtls"),
    *("tests/live/test_tls.py", "tests/live/test_dtls.py", "tests/live/test_http.py::test_tls"),
    "tests/live/test_websocket.py::test_over_tls_with_a_user",
)


def python(years: str, *words: str) -> str:
    """Run Python so many years from now, and give what it printed."""
    # CLOCK_MONOTONIC is moved, too: libfaketime 0.9.10 fails clock_nanosleep() otherwise.
    later = [program("faketime", "faketime"), "-f", f"{years}y", sys.executable, *words]
    done = subprocess.run(
        later, cwd=ROOT, capture_output=True, text=True, timeout=5 * PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_clock() -> None:
    """Python sees the other date."""
    for years in ("+10", "-1"):
        told = float(python(years, "-c", "import time; print(time.time())"))
        assert abs(told - time.time() - float(years) * YEAR) < YEAR / 2


def test_ten_years_on() -> None:
    """They pass, and none is left out."""
    said = python("+10", "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS)
    assert " passed" in said
    assert "skipped" not in said
