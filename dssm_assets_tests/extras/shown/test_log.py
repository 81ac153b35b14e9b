"""The log of shown items: whole parts, nothing lost while its place is away, no request that waits."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dssm_assets.extras.shown import log as module
from dssm_assets.extras.shown.log import ShownList, ShownLog
from dssm_assets.storage.locations import open_location
from dssm_assets_tests.deploy.services import BUCKET
from dssm_assets_tests.extras.shown.shops import find_parts, read_rows

DAY_MS = 86_400_000


def make_list(number: int, *, time_ms: int = DAY_MS, user_id: Any = "u", items: int = 3) -> ShownList:
    kind = pa.int64() if isinstance(user_id, int) else pa.string()
    return ShownList(
        kind="answer",
        time_ms=time_ms,
        request_id=f"r{number}",
        user_id=user_id,
        variant="all",
        bundle_id="b",
        item_ids=[f"n{item}" for item in range(items)],
        scores=[1.0] * items,
        channels=[["vectors", "own_history"]] * items,
        user_type=kind,
        item_type=pa.string(),
    )


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ShownLog]:
    log = ShownLog(str(tmp_path / "shown"), {}, 0.1)
    yield log
    log.close()


def wait_for(is_so: Callable[[], bool]) -> None:
    limit = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.02)


def written(log: ShownLog) -> int:
    return log.state.counts["rows_written"]


def test_a_row_per_item_in_parts_by_day_and_type(log: ShownLog, tmp_path: Path) -> None:
    assert not (tmp_path / "shown").exists(), "no file before the first row"
    for number, options in enumerate(({}, {"time_ms": 0}, {"user_id": 7}, {"user_id": None}, {"items": 0})):
        log.put(make_list(number, **options))  # the second after a clock jumped back
    wait_for(lambda: written(log) == 12)
    assert sorted(part.parent.name for part in find_parts(tmp_path)) == ["ds=1970-01-01", "ds=1970-01-02", "ds=1970-01-02"]
    rows = {row["request_id"]: row for row in read_rows(tmp_path)}
    assert {name: row["user_id"] for name, row in rows.items()} == {"r0": "u", "r1": "u", "r2": 7, "r3": None}
    assert (rows["r0"]["position"], rows["r0"]["item_id"]) == (3, "n2")
    assert (rows["r0"]["channels"], rows["r0"]["score"]) == (["vectors", "own_history"], 1.0)


def test_services_of_one_folder_write_parts_of_their_own(tmp_path: Path) -> None:
    logs = [ShownLog(str(tmp_path / "shown"), {}, 0.1) for _ in range(3)]
    for log in logs:
        log.put(make_list(1))
    for log in logs:
        log.close()
    assert (len(find_parts(tmp_path)), len(read_rows(tmp_path))) == (3, 9)


def test_parts_on_an_object_store(options: dict[str, Any]) -> None:
    root = f"s3://{BUCKET}/shown"
    log = ShownLog(root, options, 0.1)
    log.put(make_list(1))
    wait_for(lambda: written(log) == 3)
    fs, path = open_location(root, "test", options)
    (part,) = fs.find(path)
    assert pq.read_table(fs.open(part), partitioning=None).column("request_id").to_pylist() == ["r1"] * 3
    log.close()


def test_rows_wait_for_a_full_disk_and_are_told(log: ShownLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_if, is_full = module.put_if, True

    def put_or_fail(*arguments: Any) -> bool:
        if is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return put_if(*arguments)

    monkeypatch.setattr(module, "put_if", put_or_fail)
    monkeypatch.setattr(module, "MAX_ROWS", 7)
    for number in range(4):
        log.put(make_list(number))
    wait_for(lambda: log.state.counts["write_failures"] > 1)
    state = log.state
    assert (state.counts["rows_written"], state.waiting_rows, state.counts["rows_dropped"]) == (0, 6, 6)
    assert state.fault is not None
    assert "No space left" in state.fault and "To fix: " in state.fault
    is_full = False
    wait_for(lambda: log.state.fault is None)
    log.put(make_list(5))
    log.close()
    assert sorted({row["request_id"] for row in read_rows(tmp_path)}) == ["r0", "r1", "r5"]
    assert (log.state.waiting_rows, written(log)) == (0, 9)


def test_nobody_waits_for_a_place_that_hangs(log: ShownLog, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = threading.Event()
    monkeypatch.setattr(module, "put_if", lambda *_: hanging.wait(30))
    monkeypatch.setattr(module, "LATE_SECONDS", 0.3)
    log.put(make_list(1))
    wait_for(lambda: log.state.fault is not None)
    start = time.monotonic()
    for number in range(1000):
        log.put(make_list(number))
    assert time.monotonic() - start < 1
    assert "have waited for" in (log.state.fault or "")
    hanging.set()
    wait_for(lambda: log.state.fault is None and log.state.waiting_rows == 0)
