"""Vectors of all users and items as of the end of a day, computed again for the serving bundle.

The vectors of the evaluation use features as of the day before the evaluation day; a bundle serves the days after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdIndex, cast_ids, comparable_ids
from dssm_assets.core.arrays.ragged import combine_chunks
from dssm_assets.core.errors import ConfigError, Fault, InputError, remedy_of_missing
from dssm_assets.core.file_names import BundleFile, ModelFile
from dssm_assets.core.models.tower_input import HistoryReader, SideReader, TowerInput
from dssm_assets.core.models.tower_spec import TowerSide, TowerSpec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.retrieval.item_filter import comparable_column
from dssm_assets.core.retrieval.structure import StructureReport, VectorStructure
from dssm_assets.core.samples.history import HistoryCsr
from dssm_assets.core.serving.bundle_contents import list_own_items, list_user_inputs
from dssm_assets.core.serving.golden import choose_rows, golden_contexts
from dssm_assets.core.statistics.bucketizer import Bucketizer
from dssm_assets.core.training.inference import ItemInference, UserInference
from dssm_assets.core.training.model_format import model_from_bytes
from dssm_assets.steps.feature_config import RunSettings, indexed_features, open_bucketizer, towers_of
from dssm_assets.steps.training import find_history_days
from dssm_assets.steps.vectors import (
    pack_item_vectors,
    pack_user_vectors,
    read_group_codes,
    read_recent_priors,
    with_group_codes,
)
from dssm_assets.steps.workspace import Workspace, check_built_from, day_before, digests, start_of_day_ms, window_days
from dssm_assets.storage.local_files import arrow_writer, write_arrow_table
from dssm_assets.storage.manifest import Manifest

DAY_TABLES: Final = ("user_features_fg", "item_features_fg", "user_history_fg")
"""Daily tables that a bundle needs for the evaluation day itself."""
BATCH_ROWS: Final = 4096
GOLDEN_ROWS: Final = 256
"""Users and items on which an exported tower is compared with the trained one."""
RECALL_USERS: Final = 1000
"""Users that the recall of an index is measured with."""
_START, _END = "history start", "history end"

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class BundleInputs:
    """The model of a day, and the partitions that the vectors of its bundle are computed from.

    Attributes:
        ds: the evaluation day.
        as_of: the vectors are as of the end of this day: the evaluation day, or the day before it if its tables are missing.
        towers: the fitted towers.
        model: dssm_model, which holds the towers and their prior.
        settings: of the run that fitted the towers.
        bucketizer: of the model's feature configuration.
        config_tables: feature_config and feature_counts.
        total: total_hit_rate of the model.
        corpus: negative_items, the items that the model was trained on.
        users: user_features_fg of `as_of`.
        items: item_features_fg of `as_of`.
        user_table, item_table: of `as_of`. Columns for filters are read from item_table; a delta compares newer rows with both.
        history: user_history_fg of all days up to `as_of`.
        recent: positive_sample of the window that ends on `as_of`.
        evaluated: the other partitions between the model's inputs and its hit rates.
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
        """Returns the day after `as_of`, the first that the bundle serves."""
        return _next_day(self.as_of)

    @property
    def digests(self) -> dict[str, str]:
        """Returns "asset/ds" -> digest of all partitions."""
        own = [self.settings.manifest, *self.config_tables, self.total, self.corpus]
        days = [self.users, self.items, self.user_table, self.item_table]
        return digests([*own, *days, self.history, self.recent, *self.evaluated])


def open_inputs(workspace: Workspace, ds: str) -> BundleInputs:
    """Returns the model and partitions of a day's bundle.

    Raises:
        PartitionMissingError: a partition is missing.
        ProvenanceError: a partition between the model's inputs and its hit rates was materialized again since, so the bundle
            would differ from the evaluated model.
    """
    settings = towers_of(workspace, ds)
    names = ("total_hit_rate", "hit_counts", "item_vectors", "user_vectors", "dssm_model", "train_samples", "negative_items")
    total, hit_counts, item_vectors, user_vectors, model, samples, corpus = (workspace.need(name, ds) for name in names)
    bucketizer, (config, counts) = open_bucketizer(workspace, ds)
    check_built_from(total, hit_counts)
    weights = [workspace.need("channel_weights", ds)] if workspace.config.channels.is_enabled else []
    check_built_from(hit_counts, item_vectors, user_vectors, *weights)
    for fitted in weights:
        if model.key in fitted.inputs:  # default weights have no inputs
            check_built_from(fitted, model)
    check_built_from(item_vectors, model)
    check_built_from(user_vectors, model)
    check_built_from(model, settings.manifest, samples)
    check_built_from(samples, config, counts, corpus)
    as_of = _last_complete_day(workspace, ds)
    next_day = _next_day(as_of)
    return BundleInputs(
        ds=ds,
        as_of=as_of,
        towers=model_from_bytes(workspace.artifacts.read_bytes(model, ModelFile.WEIGHTS), settings.spec),
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


def _next_day(ds: str) -> str:
    return day_before(ds, -1)


@dataclass(frozen=True)
class BundleItems:
    """The items of a bundle: their ids by row, their stored vectors [I, D], and golden rows as input of the item tower."""

    index: IdIndex
    vectors: Vectors
    golden: TowerInput


@dataclass(frozen=True)
class BundleUsers:
    """The users of a bundle: their number, vectors [S, D] of some of them, and golden rows as input of the user tower."""

    row_count: int
    sample: Vectors
    golden: TowerInput


def write_items(workspace: Workspace, inputs: BundleInputs, folder: Path) -> BundleItems:
    """Writes item_ids.arrow and item_vectors.arrow, with rows in the order of item_features_fg.

    Raises:
        InputError: there are no items, or their ids or vectors cannot be searched.
    """
    spec, indexed = inputs.settings.spec, indexed_features(inputs.bucketizer, "item")
    inference, codes = ItemInference(inputs.towers, BATCH_ROWS), read_group_codes(workspace, inputs.model)
    vectors = np.empty((inputs.items.rows, spec.output_dim), np.float32)
    golden = _RowPicker(choose_rows(inputs.items.rows, GOLDEN_ROWS))
    ids: list[pa.Array] = []
    start = 0
    for batch in workspace.tables.batches(inputs.items, [col.ITEM_ID, *indexed.columns]):
        indices = pa.table(indexed.to_indices(pa.Table.from_batches([batch]), "table item_features_fg"))
        vectors[start : start + batch.num_rows] = with_group_codes(inference.vectors(indices), indices, codes)
        golden.pick(indices, start)
        ids.append(_bundle_ids(batch.column(0), "item"))
        start += batch.num_rows
    item_ids = pa.concat_arrays(ids) if ids else pa.array([], pa.int64())
    index = IdIndex(item_ids)
    if spec.prior:
        priors = read_recent_priors(workspace, inputs.model, inputs.recent, inputs.next_day, index)
        vectors = pack_item_vectors(vectors, priors)
    check_vectors("item", item_ids, vectors)
    write_item_vectors(folder, item_ids, vectors)
    reader = SideReader(golden.table(), "golden items", spec.features_of(TowerSide.ITEM))
    return BundleItems(index, vectors, reader.read(np.arange(len(golden))))


def check_vectors(side: str, ids: pa.Array, vectors: Vectors) -> None:
    """Checks that vectors [N, D] of users or items can be searched.

    Raises:
        InputError: if not, or there are none.
    """
    structure = VectorStructure(width=vectors.shape[1], expected_row_count=len(ids))
    structure.check_rows(ids, _to_lists(vectors))
    _check_structure(side, structure.report())


def write_item_vectors(folder: Path, item_ids: pa.Array, vectors: Vectors) -> None:
    """Writes item_ids.arrow and item_vectors.arrow."""
    rows = pa.array(np.arange(len(item_ids), dtype=np.int64))
    write_arrow_table(folder / BundleFile.ITEM_IDS, pa.table({col.ITEM_ID: item_ids, "row": rows}))
    write_arrow_table(
        folder / BundleFile.ITEM_VECTORS, pa.table({col.ITEM_ID: item_ids, col.ITEM_TOWER_EMB: _to_lists(vectors)})
    )


def write_filter_columns(workspace: Workspace, inputs: BundleInputs, items: BundleItems, folder: Path) -> None:
    """Writes item_columns.arrow if the configuration has columns for filters, a row per item of the bundle, in its order.

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
    table = workspace.tables.read(inputs.item_table, list(dict.fromkeys([col.ITEM_ID, *names]))).combine_chunks()
    ids = cast_ids(combine_chunks(table.column(col.ITEM_ID)), items.index.ids.type, "item_table, column item_id")
    rows = items.index.lookup(ids)
    source = np.full(len(items.index), -1, np.int64)
    source[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
    write_item_columns(folder, comparable_columns(table, names).take(pa.array(source, mask=source < 0)))


def comparable_columns(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Returns columns of item_table as filters compare them.

    Raises:
        InputError: filters cannot have a column of such a type.
    """
    return pa.table({name: comparable_column(table.column(name), f"serving.filters, column {name}") for name in names})


def write_item_columns(folder: Path, columns: pa.Table) -> None:
    """Writes item_columns.arrow, text dictionary-encoded."""
    for number, column in enumerate(columns.itercolumns()):
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            columns = columns.set_column(number, columns.column_names[number], combine_chunks(column).dictionary_encode())
    write_arrow_table(folder / BundleFile.ITEM_COLUMNS, columns)


@dataclass(frozen=True)
class UserRows:
    """The rows of some users in the files of a bundle.

    Attributes:
        ids: in the type in which a bundle stores them.
        features: embedding indices, and the bounds of each user's history.
        vectors: [U, W].
        files: file of the bundle -> its rows.
    """

    ids: pa.Array
    features: pa.Table
    vectors: Vectors
    files: dict[BundleFile, pa.RecordBatch]


class UserRowMaker:
    """Makes the rows of users from their encoded features and their whole history, for whole bundles and for deltas."""

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
        """Takes the model and the history of all these users.

        Args:
            as_of_ms: the moment of the vectors.
            channel_items: number of items in the bundle, None without channels.
        """
        self.history, self.events = history, history.to_tables()[0]
        self._spec, self._channel_items = spec, channel_items
        self._inference = UserInference(towers, self.events, as_of_ms=as_of_ms, batch_size=BATCH_ROWS)
        self._indexed = indexed_features(bucketizer, "user")

    @property
    def columns(self) -> list[str]:
        """The columns of user_features_fg that are read."""
        return [col.USER_ID, *self._indexed.columns]

    def make_rows(self, encoded: pa.Table) -> UserRows:
        """Returns the rows of the users in some rows of user_features_fg.

        Raises:
            LeakError: a history has events after the moment.
        """
        ids = combine_chunks(encoded.column(col.USER_ID))
        starts, ends = self.history.bounds(ids, where="table user_features_fg, column user_id")
        features = encoded.select([])
        for name, column in self._indexed.to_indices(encoded, "table user_features_fg").items():
            features = features.append_column(name, column)
        vectors = pack_user_vectors(self._inference.vectors(features, starts, ends), self._spec)
        stored_ids = _bundle_ids(ids, "user")
        stored = pa.RecordBatch.from_arrays([stored_ids, _to_lists(vectors)], names=[col.USER_ID, col.USER_TOWER_EMB])
        files = {
            BundleFile.USER_VECTORS: stored,
            BundleFile.USER_INPUTS: list_user_inputs(features, self.history, starts, ends, self._spec),
        }
        if self._channel_items is not None:
            files[BundleFile.OWN_ITEMS] = list_own_items(self.history, starts, ends, self._channel_items)
        for name, bound in ((_START, starts), (_END, ends)):
            features = features.append_column(name, pa.array(bound))
        return UserRows(stored_ids, features, vectors, files)


def write_users(workspace: Workspace, inputs: BundleInputs, history: HistoryCsr, num_items: int, folder: Path) -> BundleUsers:
    """Writes user_vectors.arrow, user_inputs.arrow and, with channels, own_items.arrow, in the order of user_features_fg.

    Raises:
        InputError: there are no users, or their ids or vectors cannot be searched.
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
    structure = VectorStructure(width=spec.user_vector_width, expected_row_count=inputs.users.rows)
    golden = _RowPicker(choose_rows(inputs.users.rows, GOLDEN_ROWS))
    sampled = _RowPicker(choose_rows(inputs.users.rows, RECALL_USERS))
    start, writers = 0, dict[str, Any]()
    with ExitStack() as stack:
        for batch in workspace.tables.batches(inputs.users, maker.columns):
            rows = maker.make_rows(pa.Table.from_batches([batch]))
            for name, content in rows.files.items():
                if name not in writers:
                    writers[name] = stack.enter_context(arrow_writer(folder / name, content.schema))
                writers[name].write_batch(content)
            vectors = rows.files[BundleFile.USER_VECTORS].column(1)
            structure.check_rows(rows.ids, vectors)
            golden.pick(rows.features, start)
            sampled.pick(pa.table({col.USER_TOWER_EMB: vectors}), start)
            start += batch.num_rows
    _check_structure("user", structure.report())
    sample = combine_chunks(sampled.table().column(0)).flatten().to_numpy().reshape(-1, spec.item_vector_width)
    return BundleUsers(start, sample, _golden_users(golden.table(), maker.events, spec, workspace.config.seed))


def _golden_users(table: pa.Table, events: pa.Table, spec: TowerSpec, seed: int) -> TowerInput:
    """Returns the rows as input of the user tower, every second one with a context."""
    starts, ends = (table.column(name).to_numpy() for name in (_START, _END))
    features = table.drop_columns([_START, _END])
    for name, column in golden_contexts(spec, table.num_rows, seed).items():
        features = features.append_column(name, column)
    own = SideReader(features, "golden users", spec.features_of(TowerSide.USER, TowerSide.CONTEXT)).read(
        np.arange(table.num_rows)
    )
    return HistoryReader(events, spec).read(starts, ends).join(own)


class _RowPicker:
    """Collects chosen rows of a table that arrives in batches."""

    def __init__(self, chosen: npt.NDArray[np.int64]) -> None:
        self._chosen = chosen
        self._parts: list[pa.Table] = []

    def __len__(self) -> int:
        return len(self._chosen)

    def pick(self, batch: pa.Table, start: int) -> None:
        """Collects the chosen rows of the batch that starts at a row of the table."""
        inside = self._chosen[(self._chosen >= start) & (self._chosen < start + batch.num_rows)] - start
        self._parts.append(batch.take(pa.array(inside)))

    def table(self) -> pa.Table:
        """Returns the chosen rows, in order."""
        return pa.concat_tables(self._parts).combine_chunks()


def _bundle_ids(column: pa.Array, side: str) -> pa.Array:
    """Returns ids in the type in which a bundle stores them, int64 or string."""
    return combine_chunks(comparable_ids(column, f"table {side}_features_fg, column {side}_id"))


def _to_lists(vectors: Vectors) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1), pa.float32()), vectors.shape[1])


def _check_structure(side: str, report: StructureReport) -> None:
    """Checks that there are vectors and that they can be searched.

    Raises:
        InputError: if not.
    """
    if report.passed and report.row_count:
        return
    got = report.sentence if report.row_count else f"no {side}"
    remedy = f"check {side}_features_fg of the day, or train the model again"
    raise InputError(Fault(f"serving bundle, {side} vectors", "one usable vector per id", got, remedy))
