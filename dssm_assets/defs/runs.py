"""Runs started from this process: a range of days of the daily tables, or one run per evaluation day.

Belongs here: turning names and days into Dagster runs on an instance. Does not belong here: what is run.
"""

import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterAssetCheckFailedError
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from sqlalchemy import Engine, event

from dssm_assets.core.errors import CheckFailedError


@contextmanager
def held_open() -> Iterator[None]:
    """Holds open every SQLite file that this process connects to through SQLAlchemy, until the end."""
    held: dict[str, sqlite3.Connection] = {}

    def connected(connection: Any, _record: Any) -> None:
        if not isinstance(connection, sqlite3.Connection):
            return
        path = connection.execute("PRAGMA database_list").fetchone()[2]
        if not path:
            return  # in memory
        connection.execute("PRAGMA synchronous=NORMAL")
        if path not in held:
            held[path] = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
        # Only what has looked since the file has a write-ahead log holds that open.
        held[path].execute("PRAGMA schema_version").fetchone()

    event.listen(Engine, "connect", connected)
    try:
        yield
    finally:
        event.remove(Engine, "connect", connected)
        for connection in held.values():
            connection.close()


QUIET_CONSOLE = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""What went wrong is raised; Dagster's console would print its traces beside it, twice."""


def run_range(defs: dg.Definitions, instance: dg.DagsterInstance, names: Sequence[str], days: Sequence[str]) -> None:
    """Materializes daily assets over consecutive days in one run.

    Raises:
        CheckFailedError: if a blocking check failed, with its sentence.
        Exception: whatever the failing asset raised.
    """
    tags = {ASSET_PARTITION_RANGE_START_TAG: days[0], ASSET_PARTITION_RANGE_END_TAG: days[-1]}
    _execute(defs, instance, names, tags=tags)


def run_day(defs: dg.Definitions, instance: dg.DagsterInstance, names: Sequence[str], ds: str) -> None:
    """Materializes assets of one day in one run.

    Raises:
        CheckFailedError: if a blocking check failed, with its sentence.
        Exception: whatever the failing asset raised.
    """
    _execute(defs, instance, names, partition_key=ds)


def run_days(defs: dg.Definitions, instance: dg.DagsterInstance, names: Sequence[str], days: Sequence[str]) -> None:
    """Materializes assets of several days, one run per day; a day whose check fails does not stop the next.

    Raises:
        CheckFailedError: at the end, with the sentences of all days whose blocking checks failed.
        Exception: whatever a failing asset raised, at once.
    """
    failed = []
    for ds in days:
        try:
            run_day(defs, instance, names, ds)
        except CheckFailedError as error:
            failed.append(str(error))
    if failed:
        raise CheckFailedError("; ".join(failed))


def _execute(defs: dg.Definitions, instance: dg.DagsterInstance, names: Sequence[str], **which: Any) -> None:
    run_id = str(uuid.uuid4())
    try:
        with held_open():
            defs.resolve_implicit_global_asset_job_def().execute_in_process(
                instance=instance,
                run_config=QUIET_CONSOLE,
                asset_selection=[dg.AssetKey.from_user_string(name) for name in names],
                run_id=run_id,
                **which,
            )
    except DagsterAssetCheckFailedError as error:
        raise CheckFailedError(_failed_checks(instance, run_id)) from error


def _failed_checks(instance: dg.DagsterInstance, run_id: str) -> str:
    records = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    found = [record.dagster_event.asset_check_evaluation_data for record in records]
    failed = [check for check in found if not check.passed and check.severity is dg.AssetCheckSeverity.ERROR]
    return "; ".join(f"check {check.check_name} of {check.asset_key.to_user_string()}: {check.description}" for check in failed)
