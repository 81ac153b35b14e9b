"""The vectors of a serving bundle: both towers over what was known at the end of a day, written as they come.

Users pass through part by part and only samples of them are kept; the items' vectors are held, since an index needs them.

Belongs here: reading, one pass through a tower, writing. Does not belong here: the index and the other files
(`serving.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.samples.history import HistoryCsr
from dssm_assets.core.samples.id_index import IdIndex, comparable_ids, one_array
from dssm_assets.steps.feature_config import indexed_features
from dssm_assets.steps.past import placed_history
from dssm_assets.steps.serving_sources import ServingSources
from dssm_assets.steps.stored_vectors import recent_priors, stored_items, stored_users
from dssm_assets.steps.workspace import Workspace
from dssm_assets.storage.arrow_file import write_arrow, write_arrow_table
from dssm_assets.storage.scratch_arrays import ScratchArrays

BATCH_ROWS = 4096
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ItemsServed:
    """The items of a bundle: their ids by row, their stored vectors [I, D], and golden rows as the item tower reads them."""

    index: IdIndex
    vectors: Vectors
    golden: Any


@dataclass(frozen=True)
class UsersServed:
    """The users of a bundle: how many, vectors [S, D] of some of them, and golden rows as the user tower reads them."""

    row_count: int
    sample: Vectors
    golden: Any


def write_items(workspace: Workspace, sources: ServingSources, folder: Path) -> ItemsServed:
    """Writes item_ids.arrow and item_vectors.arrow; rows are in the order of item_features_fg.

    Raises:
        InputError: ids or vectors that cannot be searched, or no item at all.
    """
    from dssm_assets.core.models.tower_feature import Side
    from dssm_assets.core.models.tower_input import SideReader
    from dssm_assets.core.serving.golden import spread_rows
    from dssm_assets.core.training.inference import ItemInference

    spec, indexed = sources.settings.spec, indexed_features(sources.bucketizer, "item")
    inference = ItemInference(sources.towers, BATCH_ROWS)
    vectors = np.empty((sources.items.rows, spec.output_dim), np.float32)
    golden = _Rows(spread_rows(sources.items.rows, workspace.config.serving.golden_rows))
    ids: list[pa.Array] = []
    begin = 0
    for batch in workspace.tables.batches(sources.items, [col.ITEM_ID, *indexed.columns]):
        indices = pa.table(indexed.of(pa.Table.from_batches([batch]), "table item_features_fg"))
        vectors[begin : begin + batch.num_rows] = inference.vectors(indices)
        golden.take(indices, begin)
        ids.append(_ids(batch.column(0), "item"))
        begin += batch.num_rows
    item_ids = pa.concat_arrays(ids) if ids else pa.array([], pa.int64())
    index = IdIndex(item_ids)
    if spec.prior:
        priors = recent_priors(workspace, sources.model, sources.recent, sources.after, index)
        vectors = stored_items(vectors, priors)
    _check_structure("item", item_ids, vectors, sources.items.rows)
    rows = pa.array(np.arange(len(item_ids), dtype=np.int64))
    write_arrow_table(folder / "item_ids.arrow", pa.table({col.ITEM_ID: item_ids, "row": rows}))
    write_arrow_table(folder / "item_vectors.arrow", pa.table({col.ITEM_ID: item_ids, col.ITEM_TOWER_EMB: _lists(vectors)}))
    reader = SideReader(golden.table(), "golden items", spec.of(Side.ITEM))
    return ItemsServed(index, vectors, reader.read(np.arange(len(golden))))


def write_users(workspace: Workspace, sources: ServingSources, items: ItemsServed, folder: Path) -> UsersServed:
    """Writes user_vectors.arrow, in the order of user_features_fg.

    Raises:
        InputError: ids or vectors that cannot be searched, or no user at all.
        LeakError: a history goes beyond the day.
    """
    with workspace.tables.partitions.staging() as scratch:
        past = _past(workspace, sources, items, ScratchArrays(scratch))
        return _write_users(workspace, sources, past, folder)


def _write_users(workspace: Workspace, sources: ServingSources, past: tuple[HistoryCsr, pa.Table], folder: Path) -> UsersServed:
    from dssm_assets.core.retrieval.structure import VectorStructure
    from dssm_assets.core.serving.golden import spread_rows

    spec, settings = sources.settings.spec, workspace.config.serving
    width = spec.user_vector_width
    structure = VectorStructure(width=width, expected_row_count=sources.users.rows)
    golden = _Rows(spread_rows(sources.users.rows, settings.golden_rows))
    sampled = _Rows(spread_rows(sources.users.rows, settings.recall_users))
    stored_type = workspace.tables.open(sources.users).schema.field(col.USER_ID).type
    id_type = _ids(pa.array([], stored_type), "user").type
    schema = pa.schema([(col.USER_ID, id_type), (col.USER_TOWER_EMB, pa.list_(pa.float32(), width))])

    def batches() -> Iterator[pa.RecordBatch]:
        begin = 0
        for ids, features, vectors in _user_parts(workspace, sources, past):
            batch = pa.RecordBatch.from_arrays([ids, _lists(vectors)], schema=schema)
            structure.take(batch.column(0), batch.column(1))
            golden.take(features, begin)
            sampled.take(pa.table({col.USER_TOWER_EMB: batch.column(1)}), begin)
            begin += batch.num_rows
            yield batch

    count = write_arrow(folder / "user_vectors.arrow", schema, batches())
    _check_report("user", structure.report())
    sample = one_array(sampled.table().column(0)).flatten().to_numpy().reshape(-1, spec.item_vector_width)
    return UsersServed(count, sample, _golden_users(golden.table(), past[1], spec, workspace.config.seed))


def _past(
    workspace: Workspace, sources: ServingSources, items: ItemsServed, scratch: ScratchArrays
) -> tuple[HistoryCsr, pa.Table]:
    """Returns all histories up to the end of the day, and their table."""
    history = placed_history(workspace, sources.past, items.index, sources.bucketizer, scratch)
    return history, history.to_tables()[0]


def _user_parts(
    workspace: Workspace, sources: ServingSources, past: tuple[HistoryCsr, pa.Table]
) -> Iterator[tuple[pa.Array, pa.Table, Vectors]]:
    """Yields ids, features with the bounds of the histories, and vectors of one part of the users after the other."""
    from dssm_assets.core.training.inference import UserInference

    history, events = past
    as_of_ms = sources.end_ms(workspace.config.calendar.timezone)
    inference = UserInference(sources.towers, events, as_of_ms=as_of_ms, batch_size=BATCH_ROWS)
    indexed = indexed_features(sources.bucketizer, "user")
    for batch in workspace.tables.batches(sources.users, [col.USER_ID, *indexed.columns]):
        rows = history.users.lookup(batch.column(0), where="table user_features_fg, column user_id")
        bounds = [np.where(rows >= 0, _at(bound, rows), 0) for bound in (history.starts, history.ends)]
        features = pa.Table.from_batches([batch]).select([])
        for name, column in indexed.of(pa.Table.from_batches([batch]), "table user_features_fg").items():
            features = features.append_column(name, column)
        vectors = stored_users(inference.vectors(features, *bounds), sources.settings.spec)
        for name, bound in zip((_START, _END), bounds, strict=True):
            features = features.append_column(name, pa.array(bound))
        yield _ids(batch.column(0), "user"), features, vectors


_START, _END = "history start", "history end"


def _golden_users(table: pa.Table, events: pa.Table, spec: Any, seed: int) -> Any:
    """Returns the rows as the user tower reads them, every second one with a context."""
    from dssm_assets.core.models.history import HistoryReader
    from dssm_assets.core.models.tower_feature import Side
    from dssm_assets.core.models.tower_input import SideReader, TowerInput
    from dssm_assets.core.serving.golden_context import golden_contexts

    starts, ends = (table.column(name).to_numpy() for name in (_START, _END))
    features = table.drop_columns([_START, _END])
    for name, column in golden_contexts(spec, table.num_rows, seed).items():
        features = features.append_column(name, column)
    own = SideReader(features, "golden users", spec.of(Side.USER, Side.CONTEXT)).read(np.arange(table.num_rows))
    bags, is_empty = HistoryReader(events, spec).read(starts, ends)
    return TowerInput(own.singles, own.bags + bags, is_empty)


class _Rows:
    """Picks chosen rows out of a table that comes part by part."""

    def __init__(self, chosen: npt.NDArray[np.int64]) -> None:
        self._chosen = chosen
        self._parts: list[pa.Table] = []

    def __len__(self) -> int:
        return len(self._chosen)

    def take(self, part: pa.Table, begin: int) -> None:
        """Takes the part that begins with this row of the whole."""
        inside = self._chosen[(self._chosen >= begin) & (self._chosen < begin + part.num_rows)] - begin
        self._parts.append(part.take(pa.array(inside)))

    def table(self) -> pa.Table:
        """Returns the chosen rows, in order."""
        return pa.concat_tables(self._parts).combine_chunks()


def _ids(column: pa.Array, side: str) -> pa.Array:
    """Returns ids as a bundle stores them, int64 or string."""
    return one_array(comparable_ids(column, f"table {side}_features_fg, column {side}_id"))


def _at(bounds: npt.NDArray[np.int64], rows: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    return bounds[rows] if len(bounds) else np.zeros(len(rows), np.int64)


def _lists(vectors: Vectors) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1), pa.float32()), vectors.shape[1])


def _check_structure(side: str, ids: pa.Array, vectors: Vectors, expected: int) -> None:
    from dssm_assets.core.retrieval.structure import VectorStructure

    structure = VectorStructure(width=vectors.shape[1], expected_row_count=expected)
    structure.take(ids, _lists(vectors))
    _check_report(side, structure.report())


def _check_report(side: str, report: Any) -> None:
    """Checks that vectors can be searched.

    Raises:
        InputError: they cannot, or there are none.
    """
    if report.passed and report.row_count:
        return
    got = report.sentence if report.row_count else f"no {side}"
    remedy = f"look at {side}_features_fg of the day, or train the model again"
    raise InputError(Fault(f"serving bundle, {side} vectors", "one usable vector per id", got, remedy))
