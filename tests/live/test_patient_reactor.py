"""The time of the patient reactor goes on with its turns."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.internet.task import Clock

from tests.live.leaks import LoggedErrors
from tests.live.patient_reactor import STEP, PatientReactor
from tests.patience import until


def test_stands_still() -> None:
    """However long one turn takes, the time of a step goes by; many turns make a timer due."""
    below = Clock()
    patient = PatientReactor(below)
    due: list[float] = []
    before = patient.seconds()
    patient.callLater(10 * STEP, lambda: due.append(patient.seconds()))
    for _ in range(9):
        below.advance(20 * STEP)  # one turn
    assert due == []
    assert patient.seconds() - before == pytest.approx(9 * STEP)
    below.advance(20 * STEP)
    below.advance(20 * STEP)  # the sum of ten steps may be just below
    assert due
    assert due[0] >= before + 10 * STEP
    patient.stop()
    assert below.getDelayedCalls() == []


async def test_at_once(reactor: Any, patient_reactor: Any) -> None:
    """A call that is made again at once leaves the turns to others."""
    times: list[float] = []

    def again() -> None:
        times.append(patient_reactor.seconds())
        if len(times) < 5:
            patient_reactor.callLater(0, again)

    patient_reactor.callLater(0, again)
    await until(reactor, lambda: len(times) == 5)
    assert sorted(set(times)) == times


async def test_call_that_fails(
    reactor: Any, patient_reactor: Any, logged_errors: LoggedErrors
) -> None:
    """A call that fails is logged, and those that are due beside it are made."""
    made: list[int] = []
    patient_reactor.callLater(STEP, lambda: 1 / 0)
    patient_reactor.callLater(STEP, made.append, 1)
    await until(reactor, lambda: made)
    assert len(logged_errors.flush(ZeroDivisionError)) == 1


def test_provides(patient_reactor: Any) -> None:
    """It provides what the reactor below it provides, and does all but time there."""
    assert patient_reactor.running
    for interface in (IReactorTime, IReactorTCP):
        assert interface.providedBy(patient_reactor)
