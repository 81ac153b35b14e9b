"""Times of events that are out of bounds: seconds, fractions, and times that are yet to come."""

from __future__ import annotations

import datetime as dt
import json

import numpy as np
import pytest

from dssm_assets.core.errors import InputError
from dssm_assets.service.engine.recall_engine import RecallEngine, UserRequest
from dssm_assets.service.engine.request_encoder import UserInputs
from dssm_assets_tests.service.bundles import write_bundle

DAY_MS = 86_400_000
TODAY = dt.datetime.now(dt.UTC).date()
TODAY_MS = (TODAY - dt.date(1970, 1, 1)).days * DAY_MS
FIRST_MS = 1_641_254_400_000
"""2022-01-04, 731 days before 2024-01-05."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    root = tmp_path_factory.mktemp("serving")
    write_bundle(root, has_channels=True, stores_inputs=True, calendar_start="2024-01-05")
    return RecallEngine.open(str(root))


def send(engine, part, *times):
    lists = {"item_ids": ["n2"] * len(times), "event_times_ms": list(times)}
    return engine.recall(UserRequest("u", UserInputs(**{part: lists})))


def tell(engine, part, *times):
    with pytest.raises(InputError) as caught:
        send(engine, part, *times)
    (fault,) = caught.value.faults
    assert fault.where == f"request, {part}, event_times_ms"
    return fault


@pytest.mark.parametrize("part", ["features", "history", "events"])
def test_times_are_bounded_by_the_calendar_and_by_tomorrow(engine, part):
    # The clock may pass midnight meanwhile.
    send(engine, part, FIRST_MS, TODAY_MS + 2 * DAY_MS - 1)
    for wrong in (FIRST_MS - 1, TODAY_MS + 3 * DAY_MS, 0, -1, -(2**63), 2**63 - 1):
        assert tell(engine, part, FIRST_MS, wrong).got.startswith(f"{wrong}, which is ")


@pytest.mark.parametrize(
    ("time", "got", "remedy"),
    [
        (1_705_017_600, "which is 1970-01-20 17:36:57; as seconds it is 2024-01-12 00:00:00", "send milliseconds, not seconds"),
        (1_705_017_600_000_000, "which is no date of the years 1 to 9999", "send unix milliseconds"),
        (17_954_208_000_000, "which is 2538-12-12 08:00:00", "send unix milliseconds"),
        (10**400, "which is no date of the years 1 to 9999", "send unix milliseconds"),
    ],
)
def test_a_wrong_time_is_told_as_the_unit_that_was_meant(engine, time, got, remedy):
    fault = tell(engine, "events", time, FIRST_MS, 5)
    assert fault.got == f"{time}, {got}; and 1 more"
    assert fault.expected.startswith("unix milliseconds from 2022-01-04 to ")
    assert fault.remedy.endswith(remedy)


@pytest.mark.parametrize("part", ["features", "history", "events"])
def test_times_with_a_point_are_refused(engine, part):
    for wrong in (*json.loads("[1705017600000.0, 1.7050176e12, 1705017600000.5, 1705017600.0, NaN]"), np.float32(0.5)):
        with pytest.raises(InputError, match=r"request, .*(send integers|event_times_ms of integers, got other values)"):
            send(engine, part, FIRST_MS, wrong)


def test_a_bundle_of_a_later_day_takes_times_of_the_day_after_it(tmp_path):
    later = TODAY + dt.timedelta(days=30)
    write_bundle(tmp_path, later.isoformat(), has_channels=True, stores_inputs=True, calendar_start="2024-01-05")
    engine = RecallEngine.open(str(tmp_path))
    send(engine, "events", TODAY_MS + 32 * DAY_MS - 1)
    tell(engine, "events", TODAY_MS + 32 * DAY_MS)


def test_a_bundle_that_does_not_know_its_calendar_refuses_later_times_alone(tmp_path):
    write_bundle(tmp_path, has_channels=True, stores_inputs=True)
    engine = RecallEngine.open(str(tmp_path))
    send(engine, "events", 0)
    assert tell(engine, "events", TODAY_MS + 3 * DAY_MS).expected.startswith("unix milliseconds up to ")
