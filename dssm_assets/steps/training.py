"""Steps of the training input: the corpus of negatives, and the window as memory-mapped embedding indices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.config.pipeline import SHOWN_EVENT
from dssm_assets.core.errors import Fault, ProvenanceError
from dssm_assets.core.file_names import TrainSamplesFile
from dssm_assets.core.samples import sample_tables
from dssm_assets.core.samples.history import HistoryCsr, build_history
from dssm_assets.core.samples.negatives import HARD_NEGATIVE_COLUMNS, count_positives, find_hard_negatives, weigh_items
from dssm_assets.core.samples.sample import SampleWeights
from dssm_assets.core.samples.sample_tables import file_schema, require_columns, require_types
from dssm_assets.core.samples.train_samples import KeptRows, discretise_day, discretise_items, discretise_rows
from dssm_assets.core.statistics.bucketizer import Bucketizer
from dssm_assets.steps.feature_config import indexed_features, open_bucketizer
from dssm_assets.steps.previous_day import ID_COLUMNS, ROW_COLUMNS, PointedTable, find_features_of_positives
from dssm_assets.steps.workspace import (
    StepResult,
    Workspace,
    day_before,
    days_between,
    digests,
    each_day,
    start_of_day_ms,
    window_days,
)
from dssm_assets.storage.artifacts import Stream
from dssm_assets.storage.local_files import ScratchArrays
from dssm_assets.storage.manifest import Column, Manifest

JOINED_ROWS: Final = 1 << 14
"""Short days are joined until so many rows are looked up at once."""
_ROW_FILES: Final = {"user": TrainSamplesFile.USER_ROWS, "item": TrainSamplesFile.ITEM_ROWS}


@each_day
def negative_items(workspace: Workspace, ds: str) -> StepResult:
    """Weighs each item known on the previous day by its popularity in the window."""
    items = workspace.need("item_features_fg", day_before(ds))
    window = workspace.need_all("positive_sample", window_days(ds, workspace.config.window.days))
    counts = count_positives(workspace.tables.read(day, [col.ITEM_ID], as_dictionaries=[col.ITEM_ID]) for day in window)
    table = weigh_items(workspace.tables.read(items), counts, workspace.config.negative_items)
    manifest = workspace.write_table(sample_tables.NEGATIVE_ITEMS, ds, table, [items, window])
    return StepResult(manifest, {"items_with_positives": counts.num_rows, "alpha": workspace.config.negative_items.alpha})


@each_day
def train_samples(workspace: Workspace, ds: str) -> StepResult:
    """Converts the window to memory-mapped rows of embedding indices."""
    with workspace.tables.partitions.staging() as scratch:
        return _write_train_samples(workspace, ds, ScratchArrays(scratch))


def _write_train_samples(workspace: Workspace, ds: str, scratch: ScratchArrays) -> StepResult:
    config, model = workspace.config, workspace.config.model
    bucketizer, config_inputs = open_bucketizer(workspace, ds)
    window = workspace.need_all("positive_sample", window_days(ds, config.window.days))
    rows = WindowRows(workspace, window, bucketizer)
    corpus = workspace.need("negative_items", ds)
    negatives = workspace.tables.read(corpus)
    item_index = IdIndex(negatives.column(col.ITEM_ID))
    items = discretise_items(negatives, indexed_features(bucketizer, "item"), config.negative_items)
    del negatives  # otherwise they stay in memory while all files are written
    # Training needs the positives of users even if no tower reads a history.
    needs_positives = (
        model.masks_user_positives or model.has_hard_negatives or model.min_history or config.training.validation_days
    )
    reads_history = bool(indexed_features(bucketizer, "sequence").names or needs_positives)
    history_days = find_history_days(workspace, ds) if reads_history else []
    # `WindowRows` has checked that the window's positives were selected from the stored tables.
    samples = workspace.need_all("sample_fg", [day.ds for day in window]) if model.has_hard_negatives else []
    previous = workspace.need("user_history_fg", day_before(ds))
    history = read_history(workspace, history_days, item_index, bucketizer, scratch, typed_by=previous)
    events, users = history.to_tables()
    kept = workspace.need_all(SHOWN_EVENT, [day.ds for day in samples]) if config.events.reads_shown else []
    files: dict[str, pa.Table | Stream] = {
        TrainSamplesFile.SAMPLES: rows.samples(item_index, history),
        TrainSamplesFile.USER_ROWS: rows.feature_rows("user"),
        TrainSamplesFile.ITEM_ROWS: rows.feature_rows("item"),
        TrainSamplesFile.HISTORY: events,
        TrainSamplesFile.USERS: users,
        TrainSamplesFile.ITEMS: items,
    }
    hard_facts: dict[str, int] = {}
    if samples:
        shown = (read_exposures(workspace, day) for day in samples)
        hard = find_hard_negatives(shown, exposure_events=config.events.exposure, item_index=item_index, history=history)
        files[TrainSamplesFile.HARD_NEGATIVES] = hard
        hard_facts["hard_negatives"] = hard.num_rows
    manifest = workspace.artifacts.publish(
        "train_samples",
        ds,
        files,
        row_file=TrainSamplesFile.SAMPLES,
        columns=tuple(column for name, content in files.items() for column in _describe_columns(name, content.schema)),
        inputs=digests([*config_inputs, corpus, rows.built_from, history_days, samples, kept]),
    )
    facts = {
        "samples": manifest.rows,
        "samples_outside_corpus": sum(day.rows for day in window) - manifest.rows,
        "users_with_history": users.num_rows,
        "history_events": events.num_rows,
        "history_days": len(history_days),
        "corpus_items": items.num_rows,
        **hard_facts,
    }
    return StepResult(manifest, facts)


def read_exposures(workspace: Workspace, samples: Manifest) -> pa.Table:
    """Returns HARD_NEGATIVE_COLUMNS of a day of sample_fg, and of the day's log of shown items if showing is an exposure event."""
    rows = workspace.tables.read(samples, list(HARD_NEGATIVE_COLUMNS))
    if not workspace.config.events.reads_shown:
        return rows
    kept = workspace.tables.read(workspace.need(SHOWN_EVENT, samples.ds), [col.USER_ID, col.ITEM_ID]).drop_null()
    event, label = pa.repeat(SHOWN_EVENT, kept.num_rows), pa.repeat(pa.scalar(0, pa.int8()), kept.num_rows)
    shown = kept.append_column(col.EVENT, event).append_column(col.LABEL, label)
    return pa.concat_tables([rows, shown.cast(rows.schema)])


def _describe_columns(file: str, schema: pa.Schema) -> list[Column]:
    return [
        Column(f"{file}: {field.name}", str(field.type), (field.metadata or {}).get(b"description", b"").decode())
        for field in schema
    ]


def find_history_days(workspace: Workspace, ds: str) -> list[Manifest]:
    """Returns the stored days of user_history_fg within window.history_days before a day. Logs the number of missing days."""
    first, last = workspace.config.calendar.start.isoformat(), workspace.config.window.history_days
    if last is not None:
        first = max(first, day_before(ds, last))
    stored = [day for day in workspace.tables.partitions.days("user_history_fg") if first <= day < ds]
    gaps = len(days_between(stored[0], day_before(ds))) - len(stored) if stored else 0
    if gaps:
        workspace.log(f"user_history_fg lacks {gaps} days between {stored[0]} and {ds}: histories are read without them")
    return workspace.need_all("user_history_fg", stored)


def read_history(
    workspace: Workspace,
    days: Sequence[Manifest],
    item_index: IdIndex,
    bucketizer: Bucketizer,
    scratch: ScratchArrays,
    *,
    typed_by: Manifest | None = None,
) -> HistoryCsr:
    """Returns the users' histories on stored days of user_history_fg, with the kept sequence features.

    Args:
        days: in any order.
        scratch: owns the arrays; they exist as long as `scratch`.
        typed_by: gives the types of ids if `days` is empty.

    Raises:
        WindowIncompleteError: `days` is empty, and `typed_by` is None.
        SchemaError: see `build_history`.
    """

    def tables(columns: Sequence[str]) -> Iterator[pa.Table]:
        if not days and typed_by is not None:
            yield workspace.tables.open(typed_by).schema.empty_table()
        for day in days:
            yield workspace.tables.read(day, [column.name for column in day.columns if column.name in columns])

    names = indexed_features(bucketizer, "sequence").names
    return build_history(
        lambda columns: _join_short(tables(columns)), item_index, bucketizer.bucketize, features=names, allocate=scratch
    )


def _join_short(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Joins consecutive tables of one schema up to JOINED_ROWS rows, because a short table takes as long as a long one."""
    pending: list[pa.Table] = []
    for table in tables:
        if pending and (table.schema != pending[0].schema or sum(map(len, pending)) + len(table) > JOINED_ROWS):
            yield pa.concat_tables(pending).combine_chunks()
            pending = []
        pending.append(table)
    if pending:
        yield pa.concat_tables(pending).combine_chunks()


class WindowRows:
    """Streams a window's positives and their feature rows as embedding indices, a day at a time."""

    def __init__(self, workspace: Workspace, window: Sequence[Manifest], bucketizer: Bucketizer) -> None:
        """Reads the positives once, to find their feature rows.

        Args:
            window: positive_sample of each day, the oldest first.

        Raises:
            ProvenanceError: a table between positives and features was made again since.
            SchemaError: a column is missing, or a row number is outside its feature table.
        """
        self._workspace = workspace
        self._window = window
        self._context = indexed_features(bucketizer, "context")
        self._features = {side: indexed_features(bucketizer, side) for side in ROW_COLUMNS}
        self._kept = {side: KeptRows() for side in ROW_COLUMNS}
        model = workspace.config.model
        self._weights = SampleWeights(model.event_weights, model.recency_half_life_days, len(window))
        self._columns = [col.USER_ID, col.ITEM_ID, col.EVENT, col.EVENT_TIME_MS, *ROW_COLUMNS.values(), *self._context.columns]
        for positive in window:
            require_columns(_name(positive), [column.name for column in positive.columns], self._columns)
        self._tables = _find_feature_tables(workspace, window)
        for positive, tables in zip(window, self._tables, strict=True):
            rows = workspace.tables.read(positive, list(ROW_COLUMNS.values()))
            for side, table in tables.items():
                if table is not None and self._features[side].names:
                    found, manifest = table.locate(rows.column(ROW_COLUMNS[side])), table.manifest
                    self._kept[side].mark(manifest.digest, manifest.rows, found)

    @property
    def built_from(self) -> list[Manifest]:
        pointed = [table.manifest for day in self._tables for table in day.values() if table is not None]
        return [*self._window, *pointed]

    def feature_rows(self, side: str) -> Stream:
        """Returns the content of user_rows.arrow or item_rows.arrow, table after table. Row 0 stands for unknown ids."""
        features, file = self._features[side], _ROW_FILES[side]
        if not features.names:
            return Stream(file_schema(file), ())
        pointed = (table.manifest for day in reversed(self._tables) if (table := day[side]) is not None)
        by_digest = {manifest.digest: manifest for manifest in pointed}
        used = [by_digest[digest] for digest in self._kept[side].tables]
        first = used[0] if used else self._workspace.need(f"{side}_features_fg", self._window[0].ds)
        encoded = self._workspace.tables.open(first).schema
        schema = file_schema(file, features.types(encoded, _name(first)))

        def batches() -> Iterator[pa.RecordBatch]:
            if not used:
                yield discretise_rows(encoded.empty_table(), features, file=file, where=_name(first), is_first=True)
            for table in used:
                parts = self._workspace.tables.batches(table, features.columns)
                kept = pa.Table.from_batches(self._kept[side].select(table.digest, parts))
                batch = discretise_rows(kept, features, file=file, where=_name(table), is_first=table is first)
                require_types(_name(table), batch.schema, schema)
                yield batch

        return Stream(schema, batches())

    def samples(self, item_index: IdIndex, history: HistoryCsr) -> Stream:
        """Returns the content of samples.arrow, day by day, without items outside the corpus."""
        first = self._window[0]
        types = self._context.types(self._workspace.tables.open(first).schema, _name(first))
        schema = file_schema(TrainSamplesFile.SAMPLES, types)
        days = range(len(self._window))
        return Stream(schema, (self._samples_of_day(number, schema, item_index, history) for number in days))

    def _samples_of_day(self, number: int, schema: pa.Schema, item_index: IdIndex, history: HistoryCsr) -> pa.RecordBatch:
        positive, config = self._window[number], self._workspace.config
        table = self._workspace.tables.read(positive, self._columns, as_dictionaries=[col.USER_ID, col.ITEM_ID, col.EVENT])
        feature_rows = {}
        for side, row in ROW_COLUMNS.items():
            pointed, rows = self._tables[number][side], table.column(row)
            found, digest = (rows, None) if pointed is None else (pointed.locate(rows), pointed.manifest.digest)
            feature_rows[row] = self._kept[side].find(digest, found)
        batch = discretise_day(
            table,
            day=number,
            day_start_ms=start_of_day_ms(positive.ds, config.calendar.timezone),
            feature_rows=feature_rows,
            features=self._context,
            item_index=item_index,
            history=history,
            cutoff=config.model.history,
            weights=self._weights,
        )
        require_types(_name(positive), batch.schema, schema)
        return batch


def _find_feature_tables(workspace: Workspace, window: Sequence[Manifest]) -> list[Mapping[str, PointedTable | None]]:
    found: list[Mapping[str, PointedTable | None]] = []
    faults: dict[str, Fault] = {}
    for positive in window:
        day: dict[str, PointedTable | None] = {}
        for side in ID_COLUMNS:
            try:
                day[side] = find_features_of_positives(workspace, side, positive)
            except ProvenanceError as error:
                faults |= {str(fault): fault for fault in error.faults}
        found.append(day)
    ProvenanceError.raise_if(faults.values())
    return found


def _name(manifest: Manifest) -> str:
    return f"table {manifest.asset}, day {manifest.ds}"
