"""
What every test over real sockets gets: a time limit, and an end without leftovers.

Tests are plain ``async def`` functions; pytest-twisted runs them in its reactor, which
``--reactor=asyncio`` changes. So the reactor is imported inside functions only.
"""

from __future__ import annotations

import functools
import gc
import inspect
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped]  # it ships no types

from tests.live.leaks import LoggedErrors, Watch, describe_error
from tests.live.patient_reactor import PatientReactor
from tests.patience import PATIENCE

TIME_LIMIT = 3 * PATIENCE
"""
Seconds for one test; ``@pytest.mark.time_limit(600)`` sets another limit.

More than any single wait takes, so that a test that hangs fails where it waits.
"""

_FAILED = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known to ``--strict-markers``."""
    config.addinivalue_line("markers", "time_limit(seconds): the longest that a live test may take")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Remember that a test failed: what it then leaves behind is no news."""
    outcome: Any = yield  # Any: pluggy's result
    if outcome.get_result().failed:
        item.stash[_FAILED] = True


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Put a bound on each coroutine test, then let pytest-twisted run it."""
    marker = pyfuncitem.get_closest_marker("time_limit")
    limit = marker.args[0] if marker else TIME_LIMIT
    if inspect.iscoroutinefunction(pyfuncitem.obj):
        pyfuncitem.obj = bounded(pyfuncitem.obj, limit)


def bounded(
    test: Callable[..., Coroutine[Any, Any, None]],  # Any: tests take fixtures
    limit: float,
) -> Callable[..., Any]:
    """Give *test* as a function whose Deferred fails with TimeoutError after *limit* seconds."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> Any:  # Any: fixtures; and a Deferred, for pytest-twisted
        from twisted.internet import reactor
        from twisted.internet.defer import Deferred

        start: Deferred[None] = Deferred()
        start.addCallback(lambda _: Deferred.fromCoroutine(test(**fixtures)))
        # Timed before it is started, so that no test sees the timer of its own limit appear.
        start.addTimeout(limit, reactor)
        start.callback(None)
        return start

    return run


@pytest.fixture
def real_reactor() -> Any:  # Any: it is many zope interfaces at once, of which mypy knows a few
    """The reactor that runs the test."""
    from twisted.internet import reactor

    return reactor


@pytest.fixture
def reactor(real_reactor: Any) -> Any:  # Any: as above
    """The reactor that a test uses; a module may replace it by ``patient_reactor``."""
    return real_reactor


@pytest.fixture
def patient_reactor(real_reactor: Any) -> Iterator[Any]:  # Any: as above
    """A reactor with real sockets, on which nothing times out because the machine is busy."""
    patient = PatientReactor(real_reactor)
    yield patient
    patient.stop()
    calls = patient.getDelayedCalls()
    if calls:
        pytest.fail(f"the test left behind: {calls}", pytrace=False)


@pytest.fixture
def logged_errors() -> Iterator[LoggedErrors]:
    """Hear the errors that are logged; ``logged_errors.flush(ZeroDivisionError)`` expects some."""
    errors = LoggedErrors()
    errors.start()
    yield errors
    errors.stop()


@pytest.fixture(scope="session", autouse=True)
def lean_collections() -> None:
    """Leave what is there before the first test out of the collections after each."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_leftovers(
    request: pytest.FixtureRequest,
    real_reactor: Any,  # Any: as above
    logged_errors: LoggedErrors,
) -> Iterator[None]:
    """
    Fail a test that leaves a delayed call, a port, a connection or a child process behind,
    that had an error logged which it did not flush, or lost the failure of a Deferred.
    """
    from twisted.internet.defer import Deferred
    from twisted.internet.task import deferLater

    # Once round, so that the reactor runs and has the pipes that wake it before it is looked at.
    pytest_twisted.blockon(deferLater(real_reactor, 0))
    watch = Watch(real_reactor)
    yield
    found = pytest_twisted.blockon(Deferred.fromCoroutine(watch.leftovers()))
    watch.clear()
    # A Deferred that nobody watches logs its failure when it is collected, and some sit in cycles.
    gc.collect()
    found += [describe_error(event) for event in logged_errors.flush()]
    if found and not request.node.stash.get(_FAILED, False):
        pytest.fail("the test left behind:\n" + "\n".join(found), pytrace=False)
