"""The only module with private interfaces of Dagster, for two things without a public way.

- Setting the code location of a run made by a command. Without it the run is missing in Overview > Timeline, and Runs shows no
  link to its job.
- Keeping connections to SQLite open. Dagster opens several per event: 1,100 events of a run take 15 CPU-s, or 3 if kept open.

Its test runs with the lowest and the newest Dagster that pyproject.toml allows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from dagster import DagsterInstance, DagsterRun, RunsFilter, deserialize_value, serialize_value

from dssm_assets.storage.config_choice import UI_LOCATION

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

_LOCATION_TAG: Final = ".dagster/repository"
_ORIGIN_TAG: Final = ".dagster/dssm_origin"
_ORIGIN: Final = """{
    "__class__": "ExternalPipelineOrigin",
    "external_repository_origin": {
        "__class__": "ExternalRepositoryOrigin",
        "repository_location_origin": {"__class__": "RegisteredRepositoryLocationOrigin", "location_name": %s},
        "repository_name": "__repository__"
    }
}"""
"""A job's origin in the form that Dagster stores with a run, without the job's name. Every later version can read this form."""
_BUSY_SECONDS: Final = 60.0


def origin_tags(instance: DagsterInstance, job: str, made_for: DagsterRun | None) -> dict[str, str]:
    """Returns tags that tell `set_origin` a run's code location.

    The location is taken from the waiting run, else from the job's last run with a location, else from the UI's printed command.
    """
    earlier = (made_for, *instance.get_runs(RunsFilter(job_name=job), limit=20))
    known = next((run.remote_job_origin for run in earlier if run is not None and run.remote_job_origin is not None), None)
    text = _ORIGIN % json.dumps(UI_LOCATION) if known is None else serialize_value(known)
    return {_LOCATION_TAG: "", _ORIGIN_TAG: json.dumps(json.loads(text) | {"pipeline_name": job})}


def set_origin(instance: DagsterInstance, run: DagsterRun) -> None:
    """Records the code location given by the tags of a run that has begun."""
    if _ORIGIN_TAG in run.tags and (stored := instance.get_run_by_id(run.run_id)) is not None:
        origin: Any = deserialize_value(run.tags[_ORIGIN_TAG])
        instance.run_storage.replace_job_origin(stored, origin)


@contextmanager
def keep_connections(instance: DagsterInstance) -> Iterator[None]:
    """Keeps the connections to a SQLite event log open until the block ends. Does nothing for another database.

    Otherwise each close of the last connection makes SQLite merge its write-ahead log and wait for the disk.
    """
    storage: Any = instance.event_log_storage
    if not hasattr(storage, "conn_string_for_shard"):
        yield
        return
    from sqlalchemy import create_engine, event  # imported here, because it takes a tenth of the code location's loading time

    engines: dict[tuple[str, ...], Engine] = {}

    def keep(name: str) -> None:
        connect_first = getattr(storage, name)

        @contextmanager
        def connect(*file: str) -> Iterator[Connection]:
            if (name, *file) not in engines:
                with connect_first(*file) as first:  # makes the file's tables
                    engine = create_engine(first.engine.url, pool_size=1, connect_args={"timeout": _BUSY_SECONDS})
                event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=NORMAL"))
                engines[name, *file] = engine
            with engines[name, *file].begin() as connection:
                yield connection

        setattr(storage, name, connect)

    keep("run_connection")
    keep("index_connection")
    storage.has_table = cache(storage.has_table)  # Dagster asks for each event, with a new connection
    try:
        yield
    finally:
        del storage.run_connection, storage.index_connection, storage.has_table  # restores the methods of the class
        for engine in engines.values():
            engine.dispose()
