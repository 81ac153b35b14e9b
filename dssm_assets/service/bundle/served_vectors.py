"""Writes the bundle's files with a row per user or item: vectors, inputs, filter columns, channels.

The evaluation uses vectors of the day before the evaluation day. A bundle serves the days after it, so it needs newer vectors.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdIndex, cast_ids, comparable_ids, find_positions
from dssm_assets.core.arrays.ragged import combine_chunks, flatten, is_text
from dssm_assets.core.channels.channel import COUNTS, SharedData
from dssm_assets.core.channels.merge import to_table
from dssm_assets.core.errors import ConfigError, Fault, InputError, remedy_of_missing
from dssm_assets.core.evaluation.evaluation_tables import MERGED
from dssm_assets.core.features.parity import choose_rows
from dssm_assets.core.file_names import CHANNELS_VERSION, BundleFile, ItemChannelColumn, ModelFile
from dssm_assets.core.models.prior import append_prior
from dssm_assets.core.models.tower_input import HistoryReader, SideReader, TowerInput
from dssm_assets.core.models.tower_spec import TowerSide, TowerSpec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.retrieval.index import ShippedIndex
from dssm_assets.core.retrieval.item_filter import comparable_column
from dssm_assets.core.retrieval.structure import VectorStructure
from dssm_assets.core.retrieval.vectors import Vectors, to_lists, to_matrix
from dssm_assets.core.samples.history import HistoryCsr
from dssm_assets.core.statistics.bucketizer import Bucketizer
from dssm_assets.core.training.inference import UserInference
from dssm_assets.service.bundle.bundle_contents import EVENT_TIMES_MS, history_column, list_own_items, list_user_inputs
from dssm_assets.service.bundle.golden import golden_contexts
from dssm_assets.steps.feature_config import RunSettings, indexed_features, open_bucketizer
from dssm_assets.steps.fit_job import map_model
from dssm_assets.steps.scoring import read_fit_data, read_merges
from dssm_assets.steps.stored_interactions import find_event_days
from dssm_assets.steps.training import find_history_days
from dssm_assets.steps.vectors import BATCH_ROWS, find_model, open_item_inference, read_recent_priors
from dssm_assets.steps.workspace import Workspace, check_built_from, day_before, digests, start_of_day_ms, window_days
from dssm_assets.storage.local_files import ScratchArrays, arrow_writer, map_arrow, read_rows, write_arrow_table
from dssm_assets.storage.manifest import Manifest

DAY_TABLES: Final = ("user_features_fg", "item_features_fg", "user_history_fg")
"""Daily tables of the evaluation day that a bundle needs."""
GOLDEN_ROWS: Final = 256
"""An exported tower is compared with the trained tower on so many users or items."""
RECALL_USERS: Final = 1000
"""The recall of an index is measured with so many users."""


@dataclass(frozen=True)
class BundleInputs:
    """The model of a day, and the input partitions of its bundle's vectors.

    Attributes:
        ds: the evaluation day.
        as_of: vectors are as of the end of this day: the evaluation day, or the day before it if its tables are missing.
        model: dssm_model with the towers and their prior; `settings` are the settings of its fit.
        config_tables: feature_config and feature_counts, read by `bucketizer`.
        total: total_hit_rate of the model.
        corpus: negative_items, the items of the training.
        users, items: user_features_fg and item_features_fg of the day `as_of`.
        user_table, item_table: tables of the day `as_of`. Filter columns come from item_table; a delta compares newer rows with both.
        history: user_history_fg of all days up to `as_of`.
        recent: positive_sample of the window that ends on `as_of`.
        evaluated: other partitions computed between the model's inputs and its hit rates.
    """

    ds: str
    as_of: str
    towers: TwoTower
    model: Manifest
    settings: RunSettings
    bucketizer: Bucketizer
    config_tables: tuple[Manifest, Manifest]
    total: Manifest
    corpus: Manifest
    users: Manifest
    items: Manifest
    user_table: Manifest
    item_table: Manifest
    history: list[Manifest]
    recent: list[Manifest]
    evaluated: tuple[Manifest, ...]

    def end_ms(self, timezone: str) -> int:
        """Returns the end of `as_of` in a time zone, in unix milliseconds."""
        return start_of_day_ms(self.next_day, timezone)

    @property
    def next_day(self) -> str:
        return day_before(self.as_of, -1)

    @property
    def digests(self) -> dict[str, str]:
        own = [self.settings.manifest, *self.config_tables, self.total, self.corpus]
        days = [self.users, self.items, self.user_table, self.item_table]
        return digests([*own, *days, self.history, self.recent, *self.evaluated])


def open_inputs(workspace: Workspace, ds: str) -> BundleInputs:
    """Returns the model and partitions of a day's bundle.

    Raises:
        PartitionMissingError: a partition is missing.
        ProvenanceError: a partition computed between the model's inputs and its hit rates was made again since, so the bundle
            would not be the evaluated model.
    """
    names = ("total_hit_rate", "hit_counts", "item_vectors", "user_vectors", "train_samples", "negative_items")
    total, hit_counts, item_vectors, user_vectors, samples, corpus = (workspace.need(name, ds) for name in names)
    model, settings = find_model(workspace, ds)
    bucketizer, (config, counts) = open_bucketizer(workspace, ds)
    check_built_from(total, hit_counts)
    weights = [workspace.need("channel_weights", ds)] if workspace.config.channels.is_enabled else []
    check_built_from(hit_counts, item_vectors, user_vectors, *weights)
    for fitted in weights:
        if model.key in fitted.inputs:  # default weights have no inputs
            check_built_from(fitted, model)
    check_built_from(item_vectors, model)
    check_built_from(user_vectors, model)
    as_of = _last_complete_day(workspace, ds)
    next_day = day_before(as_of, -1)
    return BundleInputs(
        ds=ds,
        as_of=as_of,
        towers=map_model(workspace.artifacts.local_path(model, ModelFile.WEIGHTS), settings.spec),
        model=model,
        settings=settings,
        bucketizer=bucketizer,
        config_tables=(config, counts),
        total=total,
        corpus=corpus,
        users=workspace.need("user_features_fg", as_of),
        items=workspace.need("item_features_fg", as_of),
        user_table=workspace.need("user_table", as_of),
        item_table=workspace.need("item_table", as_of),
        history=find_history_days(workspace, next_day),
        recent=workspace.need_all("positive_sample", window_days(next_day, workspace.config.window.days)),
        evaluated=(hit_counts, item_vectors, user_vectors, model, samples, *weights),
    )


def _last_complete_day(workspace: Workspace, ds: str) -> str:
    missing = [table for table in DAY_TABLES if workspace.find(table, ds) is None]
    if not missing:
        return ds
    workspace.log(
        f"{', '.join(missing)} of {ds} are not materialized: lists are as of the end of {day_before(ds)}, without the events of {ds}. "
        f"To add these: {remedy_of_missing('publish', ds)}"
    )
    return day_before(ds)


@dataclass(frozen=True)
class BundleItems:
    """The items of a bundle: ids by row, stored vectors [I, D], and golden rows as input of the item tower."""

    index: IdIndex
    vectors: Vectors
    golden: TowerInput


@dataclass(frozen=True)
class BundleUsers:
    """The users of a bundle: vectors of a sample [S, D], and golden rows as input of the user tower."""

    sample: Vectors
    golden: TowerInput


def write_items(workspace: Workspace, inputs: BundleInputs, folder: Path) -> BundleItems:
    """Writes item_ids.arrow and item_vectors.arrow, with rows in the order of item_features_fg.

    Raises:
        InputError: there are no items, or their ids or vectors are unusable.
    """
    spec, indexed = inputs.settings.spec, indexed_features(inputs.bucketizer, "item")
    inference = open_item_inference(workspace, inputs.model, inputs.towers)
    vectors = np.empty((inputs.items.rows, spec.output_dim), np.float32)
    chosen, golden = choose_rows(inputs.items.rows, GOLDEN_ROWS), list[pa.Table]()
    ids: list[pa.Array] = []
    start = 0
    for batch in workspace.tables.batches(inputs.items, [col.ITEM_ID, *indexed.columns]):
        indices = indexed.to_table(batch, "table item_features_fg")
        vectors[start : start + batch.num_rows] = inference.vectors(indices)
        golden.append(indices.take(pa.array(chosen[(chosen >= start) & (chosen < start + batch.num_rows)] - start)))
        ids.append(_bundle_ids(batch.column(0), "item"))
        start += batch.num_rows
    item_ids = pa.concat_arrays(ids) if ids else pa.array([], pa.int64())
    index = IdIndex(item_ids)
    if spec.prior:
        priors = read_recent_priors(workspace, inputs.model, inputs.recent, index)
        vectors = append_prior(vectors, priors)
    check_vectors("item", item_ids, to_lists(vectors))
    write_item_vectors(folder, item_ids, vectors)
    reader = SideReader(pa.concat_tables(golden).combine_chunks(), "golden items", spec.features_of(TowerSide.ITEM))
    return BundleItems(index, vectors, reader.read(np.arange(len(chosen))))


def check_vectors(side: str, ids: pa.Array, vectors: pa.FixedSizeListArray) -> None:
    """Raises an InputError if there are no vectors, or some are unusable. `side`: user or item."""
    structure = VectorStructure(width=vectors.type.list_size, expected_row_count=len(ids), is_of_users=side == "user")
    structure.check_rows(ids, vectors)
    _check_structure(side, structure)


def write_item_vectors(folder: Path, item_ids: pa.Array, vectors: Vectors) -> None:
    """Writes item_ids.arrow and item_vectors.arrow."""
    rows = pa.array(np.arange(len(item_ids), dtype=np.int64))
    write_arrow_table(folder / BundleFile.ITEM_IDS, pa.table({col.ITEM_ID: item_ids, "row": rows}))
    write_arrow_table(
        folder / BundleFile.ITEM_VECTORS, pa.table({col.ITEM_ID: item_ids, col.ITEM_TOWER_EMB: to_lists(vectors)})
    )


def write_filter_columns(workspace: Workspace, inputs: BundleInputs, items: BundleItems, folder: Path) -> None:
    """Writes item_columns.arrow if filter columns are configured: one row per item, in the bundle's order.

    Raises:
        ConfigError: item_table lacks a column.
    """
    names = workspace.config.serving.filters
    if not names:
        return
    known = [one.name for one in inputs.item_table.columns]
    lacking = [name for name in names if name not in known]
    if lacking:
        expected = f"columns of item_table: {', '.join(known)}"
        raise ConfigError(Fault("serving.filters", expected, ", ".join(lacking), "name existing columns"))
    columns, source = read_filter_columns(workspace, inputs.item_table, names, items.index)
    write_item_columns(folder, columns.take(pa.array(source, mask=source < 0)))


def read_filter_columns(
    workspace: Workspace, item_table: Manifest, names: Sequence[str], items: IdIndex
) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """Returns filter columns of item_table, prepared for comparisons, and each bundle item's row in them (-1: no row).

    Raises:
        InputError: a column's type cannot be filtered.
    """
    table = workspace.tables.read(item_table, list(dict.fromkeys([col.ITEM_ID, *names]))).combine_chunks()
    columns = {name: comparable_column(table.column(name), f"serving.filters, column {name}") for name in names}
    return pa.table(columns), find_positions(items.ids, table_ids(table, "item", items.ids.type))


def table_ids(table: pa.Table, side: str, kind: pa.DataType) -> pa.Array:
    """Returns the column user_id or item_id, cast to the id type of a bundle."""
    where = f"{side}_table, column {side}_id"
    return cast_ids(combine_chunks(comparable_ids(table.column(f"{side}_id"), where)), kind, where)


def write_item_columns(folder: Path, columns: pa.Table) -> None:
    """Writes item_columns.arrow, with text dictionary-encoded."""
    for number, column in enumerate(columns.itercolumns()):
        if is_text(column.type):
            columns = columns.set_column(number, columns.column_names[number], combine_chunks(column).dictionary_encode())
    write_arrow_table(folder / BundleFile.ITEM_COLUMNS, columns)


class UserRowMaker:
    """Makes the rows of users, for whole bundles and deltas, from encoded features and whole histories."""

    def __init__(
        self,
        towers: TwoTower,
        bucketizer: Bucketizer,
        spec: TowerSpec,
        history: HistoryCsr,
        *,
        as_of_ms: int,
        channel_items: int | None,
    ) -> None:
        """`as_of_ms` is the moment of the vectors, `channel_items` the number of the bundle's items (None: it has no channels)."""
        self._history, self._spec, self._channel_items = history, spec, channel_items
        self._inference = UserInference(towers, history.to_tables()[0], as_of_ms=as_of_ms, batch_size=BATCH_ROWS)
        self._indexed = indexed_features(bucketizer, "user")

    @property
    def columns(self) -> list[str]:
        return [col.USER_ID, *self._indexed.columns]

    def make_rows(self, encoded: pa.Table) -> dict[BundleFile, pa.RecordBatch]:
        """Returns file of the bundle -> rows, for the users of some rows of user_features_fg.

        Raises:
            LeakError: a history has events at or after `as_of_ms`.
        """
        ids = combine_chunks(encoded.column(col.USER_ID))
        starts, ends = self._history.bounds(self._history.users.lookup(ids, where="table user_features_fg, column user_id"))
        features = self._indexed.to_table(encoded, "table user_features_fg")
        vectors = self._inference.vectors(features, starts, ends)
        columns = [_bundle_ids(ids, "user"), to_lists(vectors)]
        stored = pa.RecordBatch.from_arrays(columns, names=[col.USER_ID, col.USER_TOWER_EMB])
        files = {
            BundleFile.USER_VECTORS: stored,
            BundleFile.USER_INPUTS: list_user_inputs(features, self._history, starts, ends, self._spec),
        }
        if self._channel_items is not None:
            files[BundleFile.OWN_ITEMS] = list_own_items(self._history, starts, ends, self._channel_items)
        return files


def write_users(workspace: Workspace, inputs: BundleInputs, history: HistoryCsr, num_items: int, folder: Path) -> BundleUsers:
    """Writes user_vectors.arrow, user_inputs.arrow and, with channels, own_items.arrow, in the order of user_features_fg.

    Raises:
        InputError: there are no users, or their ids or vectors are unusable.
        LeakError: a history has events after the day.
    """
    spec = inputs.settings.spec
    maker = UserRowMaker(
        inputs.towers,
        inputs.bucketizer,
        spec,
        history,
        as_of_ms=inputs.end_ms(workspace.config.calendar.timezone),
        channel_items=num_items if workspace.config.channels.is_enabled else None,
    )
    structure = VectorStructure(width=spec.user_vector_width, expected_row_count=inputs.users.rows, is_of_users=True)
    writers: dict[str, Any] = {}
    with ExitStack() as stack:
        for batch in workspace.tables.batches(inputs.users, maker.columns):
            rows = maker.make_rows(pa.Table.from_batches([batch]))
            for name, content in rows.items():
                if name not in writers:
                    writers[name] = stack.enter_context(arrow_writer(folder / name, content.schema))
                writers[name].write_batch(content)
            structure.check_rows(*rows[BundleFile.USER_VECTORS].columns)
    _check_structure("user", structure)
    golden = _read_golden_users(folder, choose_rows(inputs.users.rows, GOLDEN_ROWS), spec, workspace.config.seed)
    return BundleUsers(sample_users(folder, spec), golden)


def describe_index(shipped: ShippedIndex, recall_users: int) -> dict[str, Any]:
    """Returns the entry of an index in the manifest of a bundle."""
    return {
        "kind": shipped.kind,
        "parameters": dict(shipped.parameters),
        "recall_at": {str(k): round(recall, 6) for k, recall in shipped.recall_at.items()},
        "recall_users": recall_users,
    }


def sample_users(folder: Path, spec: TowerSpec) -> Vectors:
    """Returns vectors [S, D] of at most RECALL_USERS users of a bundle. A user with several interests has several vectors."""
    users = map_arrow(folder / BundleFile.USER_VECTORS)
    chosen = read_rows(users, choose_rows(users.num_rows, RECALL_USERS)).column(col.USER_TOWER_EMB)
    return np.ascontiguousarray(to_matrix(chosen, "user_vectors").reshape(-1, spec.item_vector_width))


def _read_golden_users(folder: Path, rows: npt.NDArray[np.int64], spec: TowerSpec, seed: int) -> TowerInput:
    """Returns some users' inputs of the user tower. Every second user gets a context."""
    stored = read_rows(map_arrow(folder / BundleFile.USER_INPUTS), rows)
    times, offsets = flatten(combine_chunks(stored.column(EVENT_TIMES_MS)))
    events = {feature.name: combine_chunks(stored.column(history_column(feature.name))).flatten() for feature in spec.sequences}
    for name, column in golden_contexts(spec, len(rows), seed).items():
        stored = stored.append_column(name, column)
    features = spec.features_of(TowerSide.USER, TowerSide.CONTEXT)
    own = SideReader(stored, "golden users", features).read(np.arange(len(rows)))
    history = HistoryReader(pa.table({col.EVENT_TIME_MS: times, **events}), spec)
    return own.with_history(history.read(offsets[:-1], offsets[1:]))


def _bundle_ids(column: pa.Array, side: str) -> pa.Array:
    return combine_chunks(comparable_ids(column, f"table {side}_features_fg, column {side}_id"))


def _check_structure(side: str, structure: VectorStructure) -> None:
    is_sound, sentence = structure.report()
    if is_sound and structure.row_count:
        return
    got = sentence if structure.row_count else f"no {side}"
    remedy = f"check {side}_features_fg of the day, or train the model again"
    raise InputError(Fault(f"serving bundle, {side} vectors", "one usable vector per id", got, remedy))


def write_channels(
    workspace: Workspace, inputs: BundleInputs, history: HistoryCsr, items: IdIndex, scratch: ScratchArrays, folder: Path
) -> None:
    """Writes channels.json (the evaluated weights) and item_channels.arrow (neighbours and counts as of the bundle's day).

    Args:
        history: histories of all users, up to the end of the bundle's day.
        items: items of the bundle, by row.
        scratch: allocates large arrays.
    """
    merges, _ = read_merges(workspace, inputs.ds)
    content = {
        "version": CHANNELS_VERSION,
        "now_ms": inputs.end_ms(workspace.config.calendar.timezone),
        "depths": {str(name): depth for name, depth in workspace.config.channels.depths.items()},
        "weights": to_table([merge for merge in merges if merge.name == MERGED]).to_pylist(),
    }
    (folder / BundleFile.CHANNELS).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    data = read_fit_data(workspace, find_event_days(workspace, inputs.next_day), items.ids, history.users.ids, scratch)
    shared = SharedData.fit(data)
    neighbors, starts = shared.neighbors, pa.array(shared.neighbors.indptr, pa.int64())
    columns = {name: pa.array(getattr(shared, name)) for name in COUNTS}
    columns[ItemChannelColumn.NEIGHBORS] = pa.LargeListArray.from_arrays(starts, pa.array(neighbors.indices, pa.int32()))
    columns[ItemChannelColumn.SIMILARITIES] = pa.LargeListArray.from_arrays(starts, pa.array(neighbors.data))
    write_arrow_table(folder / BundleFile.ITEM_CHANNELS, pa.table(columns))
