"""Makes the files that batches are read from: samples, the features of their users and items, and corpus items.

All files have embedding indices. All samples of a user and a day have the same user features. These are stored once, in a row
of user_rows.arrow, and samples have its number; likewise for item features. Only context features are in samples.arrow.

Belongs here: one day of samples.arrow, the rows of one feature table, the whole of items.arrow, and the choice of rows to
keep. Does not belong here: history.arrow and users.arrow (`history.py`), batches (`core/training`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import Column, IdIndex
from dssm_assets.core.arrays.ragged import combine_chunks
from dssm_assets.core.config.model import History
from dssm_assets.core.config.pipeline import NegativeItems
from dssm_assets.core.file_names import TrainSamplesFile
from dssm_assets.core.samples.embedding_index import IndexedFeatures
from dssm_assets.core.samples.history import HistoryCsr, history_end
from dssm_assets.core.samples.negatives import with_distribution
from dssm_assets.core.samples.sample import SampleWeights
from dssm_assets.core.samples.sample_tables import file_schema

_TABLE = "table positive_sample"
Rows = npt.NDArray[np.int32]


def discretise_day(
    positive_sample: pa.Table,
    *,
    day: int,
    day_start_ms: int,
    feature_rows: Mapping[str, Rows],
    features: IndexedFeatures,
    item_index: IdIndex,
    history: HistoryCsr,
    cutoff: History,
    weights: SampleWeights,
) -> pa.RecordBatch:
    """Returns the day's rows of samples.arrow, in the order of positive_sample.

    Rows with an item outside the corpus are left out, because items.arrow has no row for it. Whatever the cutoff, a sample's
    history ends strictly before its own event.

    Args:
        day: number of the day in the window, 0 the oldest.
        day_start_ms: the first instant of this day in calendar.timezone, the cutoff of `History.DAY`.
        feature_rows: user_row (in user_rows.arrow) and item_row (in item_rows.arrow) of each row of positive_sample.
        item_index: the corpus: item ids in the order of negative_items.
        cutoff: the end of a sample's history. `History.LEAVE_ONE_OUT` is treated like `History.EVENT` here; training reads the
            later events itself (`core/training/data.py`).

    Raises:
        SchemaError: a feature's column is missing or named like a fixed column, or an id is null or has the wrong type.
    """
    items = item_index.lookup(positive_sample.column(col.ITEM_ID), where=f"{_TABLE}, column {col.ITEM_ID}")
    is_kept = items >= 0
    kept = positive_sample.filter(pa.array(is_kept))
    users = history.users.lookup(kept.column(col.USER_ID), where=f"{_TABLE}, column {col.USER_ID}")
    times: npt.NDArray[np.int64] = kept.column(col.EVENT_TIME_MS).to_numpy()
    # The minimum, because a log may file an event under a later day. Its history must not contain the event then either.
    cutoff_ms = np.minimum(times, np.int64(day_start_ms)) if cutoff is History.DAY else times
    indices = features.to_indices(kept, _TABLE)
    arrays = [
        pa.array(items[is_kept]),
        pa.array(users),
        pa.array(history_end(history, users, cutoff_ms)),
        pa.array(times),
        pa.array(weights.weigh(kept, day)),
        pa.array(np.full(kept.num_rows, day, dtype=np.int32)),
        *(pa.array(feature_rows[name][is_kept]) for name in (col.USER_ROW, col.ITEM_ROW)),
        *indices.values(),
    ]
    schema = file_schema(TrainSamplesFile.SAMPLES, {name: column.type for name, column in indices.items()})
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def discretise_rows(
    encoded: pa.Table, features: IndexedFeatures, *, file: TrainSamplesFile, where: str, is_first: bool = False
) -> pa.RecordBatch:
    """Converts rows of a feature table to rows of user_rows.arrow or item_rows.arrow, in the same order.

    Args:
        is_first: prepend the row for unknown ids: index 0 or an empty list in every column.
    """
    if is_first:
        unknown = pa.Table.from_arrays([pa.nulls(1, field.type) for field in encoded.schema], schema=encoded.schema)
        encoded = pa.concat_tables([unknown, encoded])
    indices = features.to_indices(encoded, where)
    schema = file_schema(file, {name: column.type for name, column in indices.items()})
    return pa.RecordBatch.from_arrays(list(indices.values()), schema=schema)


def discretise_items(negative_items: pa.Table, features: IndexedFeatures, distribution: NegativeItems) -> pa.Table:
    """Returns items.arrow: the weight and the features of every corpus item, in the order of the corpus.

    Args:
        distribution: distribution of the weights; stored in the schema of items.arrow.
    """
    indices = features.to_indices(negative_items, "table negative_items")
    weight = combine_chunks(negative_items.column(col.WEIGHT))
    schema = with_distribution(
        file_schema(TrainSamplesFile.ITEMS, {name: column.type for name, column in indices.items()}), distribution
    )
    return pa.Table.from_arrays([weight, *indices.values()], schema=schema)


class KeptRows:
    """Numbers the feature rows used by samples from 1, table after table. Number 0 stands for an unknown id.

    Tables are ordered by their first call of `mark`, the rows of a table by their position. Example: rows 4 and 1 of a first
    table and row 0 of a second are marked. Their numbers are 2, 1 and 3.
    """

    def __init__(self) -> None:
        self._is_kept: dict[str, npt.NDArray[np.bool_]] = {}

    @property
    def tables(self) -> list[str]:
        return [table for table, is_kept in self._is_kept.items() if is_kept.any()]

    def mark(self, table: str, row_count: int, rows: Column) -> None:
        """Marks rows of a table as used by samples: the row of each sample, null for an unknown id."""
        self._is_kept.setdefault(table, np.zeros(row_count, np.bool_))[combine_chunks(rows).drop_null().to_numpy()] = True

    def find(self, table: str | None, rows: Column) -> npt.NDArray[np.int32]:
        """Returns each sample's row number among the marked rows. 0: the sample has no row, or the table no marked rows.

        Args:
            table: name of the feature table. None on the very first day, when there is no feature table yet.
        """
        if table is None or table not in self._is_kept:
            return np.zeros(len(rows), np.int32)
        names = list(self._is_kept)
        first = 1 + sum(int(self._is_kept[earlier].sum()) for earlier in names[: names.index(table)])
        is_kept = self._is_kept[table]
        numbers = np.zeros(len(is_kept) + 1, np.int32)  # the last element, at position -1, is for null
        numbers[:-1][is_kept] = np.arange(first, first + int(is_kept.sum()))
        return np.asarray(numbers[pc.fill_null(combine_chunks(rows), -1).to_numpy()])

    def select(self, table: str, parts: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yields the marked rows of a table, part by part."""
        is_kept, start = self._is_kept[table], 0
        for part in parts:
            yield part.filter(pa.array(is_kept[start : start + part.num_rows]))
            start += part.num_rows
