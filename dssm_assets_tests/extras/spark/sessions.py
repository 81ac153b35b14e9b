"""A fake Spark session that runs the tasks of mapped partitions in this process; queries need a real cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pyarrow as pa

Work = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]


class LocalSession:
    """Runs one task after the other, the last one first, each with its own unpickled copy, as on a cluster."""

    conf = SimpleNamespace(set=lambda key, value: None)

    def range(self, start: int, end: int, step: int, partitions: int) -> _Numbers:
        assert (start, step, partitions) == (0, 1, end)
        return _Numbers(end)


@dataclass(frozen=True)
class _Numbers:
    count: int

    def mapInArrow(self, work: Work, schema: Any) -> _Sent:  # noqa: N802
        from pyspark import cloudpickle

        return _Sent(self.count, cloudpickle.dumps(work))


@dataclass(frozen=True)
class _Sent:
    count: int
    work: bytes

    def collect(self) -> list[dict[str, Any]]:
        from pyspark import cloudpickle

        numbers = [pa.record_batch([pa.array([number])], ["id"]) for number in reversed(range(self.count))]
        return [row for one in numbers for made in cloudpickle.loads(self.work)(iter([one])) for row in made.to_pylist()]
