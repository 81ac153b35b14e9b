"""Runs of a plan in two processes: the partitions of one process, order, failures, processes that are killed."""

import multiprocessing
import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from dssm_assets.core.errors import DssmError, EmptyDayError, Fault
from dssm_assets.defs.run_plan import PlannedRun
from dssm_assets.defs.scene import Scene
from dssm_assets.materialize import needed_runs, plan_runs, run_plan, split_runs
from dssm_assets.parallel_runs import make_in_parallel
from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY


class Note(NamedTuple):
    name: str
    fault: str = ""


@contextmanager
def make_notes(scene, observer):
    def make(note):
        observer.on_log(f"{note.name} {os.getpid()}")
        if note.fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if note.fault:
            raise EmptyDayError(Fault(note.name, "rows", note.fault, "add some"))

    yield make


def run_notes(*notes, needs, processes=2):
    recorder = worlds.Recorder()
    may_fail = lambda note: note.name.startswith("day")  # noqa: E731
    failed = make_in_parallel(None, notes, needs, make_notes, recorder, processes=processes, may_fail=may_fail)
    return [line.split()[0] for line in recorder.lines], {line.split()[1] for line in recorder.lines}, failed


NONE = frozenset()


def test_a_run_begins_after_those_that_it_needs(quick):
    needs = [NONE, frozenset({0}), frozenset({0, 1}), frozenset({2})]
    for processes in (1, 2, 3):
        made, _, failed = run_notes(*map(Note, "abcd"), needs=needs, processes=processes)
        assert (made, failed) == (["a", "b", "c", "d"], {})


def test_runs_that_do_not_need_each_other_are_made_by_several_processes(quick):
    made, processes, _ = run_notes(*(Note(f"n{number}") for number in range(400)), needs=[NONE] * 400)
    assert sorted(made) == sorted(f"n{number}" for number in range(400))
    assert 1 <= len(processes) <= 2


def test_a_day_that_fails_does_not_stop_the_others_and_its_error_arrives_whole(quick):
    for processes in (1, 2):
        made, _, failed = run_notes(
            Note("day1", "none"), Note("day2"), Note("last"), needs=[NONE, NONE, frozenset({0, 1})], processes=processes
        )
        assert made[-1] == "last"
        assert {place: type(error) for place, error in failed.items()} == {0: EmptyDayError}
        assert failed[0].faults[0].got == "none"


def test_what_may_not_fail_ends_everything(quick):
    for processes in (1, 2):
        with pytest.raises(EmptyDayError, match="expected rows, got none"):
            run_notes(Note("table", "none"), Note("day1"), needs=[NONE, frozenset({0})], processes=processes)


@contextmanager
def make_slowly_or_be_killed(scene, observer):
    yield lambda number: time.sleep(0.5) if number else os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_is_reported_and_nothing_more_is_begun(quick):
    with pytest.raises(DssmError, match="0: the process that made it has ended"):
        make_in_parallel(
            None, range(50), [NONE] * 50, make_slowly_or_be_killed, worlds.Recorder(), processes=2, may_fail=lambda _: True
        )


class Failing(worlds.Recorder):
    def on_log(self, text):
        raise OSError("the terminal is gone")


def test_an_observer_that_fails_ends_everything(quick):
    for processes in (1, 2):
        with pytest.raises(OSError, match="the terminal is gone"):
            make_in_parallel(
                None, [Note("a"), Note("b")], [NONE, NONE], make_notes, Failing(), processes=processes, may_fail=lambda _: True
            )


@contextmanager
def make_wrongly(scene, observer):
    yield lambda note: [][note]


def test_an_error_that_is_not_of_the_input_ends_everything_with_its_traceback(quick):
    with pytest.raises(RuntimeError, match=r"(?s)7:.*Traceback.*IndexError"):
        make_in_parallel(None, [7] * 50, [NONE] * 50, make_wrongly, worlds.Recorder(), processes=2, may_fail=lambda _: True)


@contextmanager
def make_in_a_pool(scene, observer):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield lambda number: observer.on_log(f"{pool.submit(abs, number).result()} {os.getpid()}")


def test_a_run_may_start_processes_of_its_own():
    recorder = worlds.Recorder()
    numbers = list(range(-40, 0))
    make_in_parallel(None, numbers, [NONE] * 40, make_in_a_pool, recorder, processes=2, may_fail=lambda _: False)
    assert sorted(int(line.split()[0]) for line in recorder.lines) == list(range(1, 41))


def test_two_processes_write_the_partitions_of_one(world, tmp_path):
    known, loaded, recorder = world.workspace, worlds.write_world(tmp_path), worlds.Recorder()
    plan = plan_runs(Scene(loaded), "hit_counts", EVALUATION_DAY, EVALUATION_DAY, with_upstream=True)
    run_plan(plan, recorder, tmp_path / "instance", processes=2)
    made = sorted(recorder.partitions)
    assert made == sorted((name, ds) for run in plan.runs for name in run.names for ds in run.days)
    assert {("behavior", DAYS[0]), ("channel_weights", EVALUATION_DAY)} <= set(made)
    workspace = open_workspace(loaded)
    assert [workspace.need(*one).digest for one in made] == [known.need(*one).digest for one in made]


def test_reports_are_made_in_the_order_of_the_days_and_fits_are_not():
    names = ("dssm_model", "hit_counts", "total_hit_rate")
    runs = list(split_runs([PlannedRun(names, (ds,), is_windowed=True) for ds in DAYS[-3:]], processes=2))
    first, second, third = ((ds,) for ds in DAYS[-3:])
    days, reports = [(names[:2], ds) for ds in (first, second, third)], [(names[2:], ds) for ds in (first, second, third)]
    assert [(run.names, run.days) for run in runs] == [*days, *reports]  # the third day starts while the first two are made
    needed = (), (), (), {0}, {1, 3}, {2, 3, 4}
    assert needed_runs(runs, is_warm=False) == [frozenset(places) for places in needed]
    assert needed_runs(runs, is_warm=True) == [frozenset(range(place)) for place in range(6)]


def test_each_process_makes_a_part_of_the_days_except_of_rolling_states():
    names = ("behavior_table", "behavior", "item_activity", "item_all_feature", "item_features_fg", "sample_fg")
    days = tuple(f"2024-01-{day:02}" for day in range(1, 18))
    runs = list(split_runs([PlannedRun(names, days, is_windowed=False)], processes=2))
    log, features, first, last = names[:2], names[3:5], days[:8], days[8:]
    assert [(run.names, run.days) for run in runs] == [
        (log, first),
        (log, last),
        (names[2:3], days),
        (features, first),
        (features, last),
        (names[5:], first),
        (names[5:], last),
    ]
    needed = (), (), {0, 1}, {2}, {2}, {3, 4}, {3, 4}
    assert needed_runs(runs, is_warm=False) == [frozenset(places) for places in needed]
    few = PlannedRun(names[:2], days[:15], is_windowed=False)
    assert list(split_runs([few], processes=2)) == [few]
