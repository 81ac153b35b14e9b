"""Training's input: the corpus of negatives and the rows in index form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.errors import ConfigError, Fault, ProvenanceError
from dssm_assets.core.features.spec import Feature
from dssm_assets.core.file_names import TrainSamplesFile
from dssm_assets.core.samples import sample_tables
from dssm_assets.core.samples.history import HistoryCsr, build_history
from dssm_assets.core.samples.negatives import HARD_NEGATIVE_COLUMNS, count_positives, find_hard_negatives, weigh_items
from dssm_assets.core.samples.sample import SampleWeights
from dssm_assets.core.samples.sample_fg import widen
from dssm_assets.core.samples.sample_tables import feature_rows_schema, require_columns, require_types, samples_schema
from dssm_assets.core.samples.train_samples import KeptRows, discretise_day, discretise_items, discretise_rows
from dssm_assets.core.statistics.bucketizer import Bucketizer
from dssm_assets.core.statistics.value_counts import CodedTable, code_columns
from dssm_assets.steps.feature_config import indexed_features, open_bucketizer
from dssm_assets.steps.workspace import (
    StepResult,
    Workspace,
    check_built_from,
    day_before,
    days_between,
    digests,
    start_of_day_ms,
    window_days,
)
from dssm_assets.storage.artifacts import Stream
from dssm_assets.storage.local_files import ScratchArrays
from dssm_assets.storage.manifest import Column, Manifest

ID_COLUMNS: Final = {"user": col.USER_ID, "item": col.ITEM_ID}
ROW_COLUMNS: Final = {"user": col.USER_ROW, "item": col.ITEM_ROW}


def find_previous_day_features(workspace: Workspace, side: str, ds: str) -> Manifest | None:
    """Returns a side's features as of the day before; None on the first day of all, when nothing was known.

    Raises:
        PartitionMissingError: if there is no such partition.
    """
    is_first = ds == workspace.config.calendar.start.isoformat()
    return None if is_first else workspace.need(f"{side}_features_fg", day_before(ds))


class FeatureTables:
    """Feature tables of one side at a time: days that share a table by content read it once."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._values: dict[str, tuple[str, pa.Table | CodedTable]] = {}

    def find_for_positives(self, side: str, positive: Manifest) -> Manifest | None:
        """Returns the feature table that a day's positives point into; None on the first day.

        Raises:
            ProvenanceError: a table between it and the positives was made again since: the row numbers mean nothing.
        """
        workspace, ds = self._workspace, positive.ds
        placed = workspace.need("sample_fg", ds)
        check_built_from(positive, placed)
        if f"{side}_features_fg/{day_before(ds)}" not in placed.inputs:
            return None
        manifest = workspace.need(f"{side}_features_fg", day_before(ds))
        check_built_from(placed, manifest)
        return manifest

    def read_values(self, side: str, manifest: Manifest, features: Sequence[Feature]) -> pa.Table | CodedTable:
        """Returns features of a table as `count_values` takes them; those of the last table of each side are held.

        The first day of a table gets its columns as they are. A day that finds the same table again gets them coded: that
        costs more than a day's counting, and makes counting cheap on all days that follow.
        """
        digest, held = self._values.get(side, ("", None))
        if held is None or digest != manifest.digest:
            held = self._workspace.tables.read(manifest, [feature.name for feature in features]).combine_chunks()
        elif isinstance(held, pa.Table):
            held = code_columns(held, features)
        self._values[side] = (manifest.digest, held)
        return held


def read_wide_sample(workspace: Workspace, asset: str, ds: str) -> pa.Table:
    """Returns a day of sample_fg or positive_sample with every feature in a column of its own, for people to look at.

    Raises:
        PartitionMissingError: if there is no such partition.
        ProvenanceError: if the feature tables were made again since.
    """
    samples = workspace.need(asset, ds)
    placed = samples if asset == "sample_fg" else workspace.need("sample_fg", ds)
    if placed is not samples:
        check_built_from(samples, placed)
    sides = []
    for side in ID_COLUMNS:
        key = f"{side}_features_fg/{day_before(ds)}"
        if key in placed.inputs:
            manifest = workspace.need(f"{side}_features_fg", day_before(ds))
            check_built_from(placed, manifest)
            sides.append(workspace.tables.read(manifest))
        else:
            sides.append(workspace.tables.open(workspace.need(f"{side}_features_fg", ds)).schema.empty_table())
    return widen(workspace.tables.read(samples), *sides)


class WindowRows:
    """The positives of a window and the feature rows that they point to, as streams of embedding indices."""

    def __init__(self, workspace: Workspace, window: Sequence[Manifest], bucketizer: Bucketizer) -> None:
        """Goes through the window once.

        Args:
            workspace: where the tables are.
            window: positive_sample of each day, the oldest first.
            bucketizer: which features are kept and what becomes of their values.

        Raises:
            ProvenanceError: a table between the positives and their features was made again since: naming each.
            SchemaError: a column is missing, or a row lies outside of its feature table.
        """
        self._workspace = workspace
        self._window = window
        self._context = indexed_features(bucketizer, "context")
        self._features = {side: indexed_features(bucketizer, side) for side in ROW_COLUMNS}
        self._kept = {side: KeptRows() for side in ROW_COLUMNS}
        model = workspace.config.model
        self._weights = SampleWeights(model.event_weights, model.recency_half_life_days, len(window))
        keys = [col.USER_ID, col.ITEM_ID, col.EVENT_TIME_MS, *ROW_COLUMNS.values(), *self._weights.columns]
        self._wanted = [*keys, *self._context.columns]
        for positive in window:
            require_columns(_words(positive), [column.name for column in positive.columns], self._wanted)
        self._tables = _feature_tables(workspace, window)
        for positive, day in zip(window, self._tables, strict=True):
            self._mark(positive, day)

    @property
    def built_from(self) -> list[Manifest]:
        """The positives and every feature table that they point into."""
        pointed = [manifest for day in self._tables for manifest in day.values() if manifest is not None]
        return [*self._window, *pointed]

    def feature_rows(self, side: str) -> Stream:
        """Returns user_rows.arrow or item_rows.arrow: a batch per feature table, "unknown" first of all.

        Raises (also when drawn):
            SchemaError: a feature is missing or of another type than on the days before.
        """
        features, file, tables = self._features[side], _file(side), self._workspace.tables
        if not features.names:
            return Stream(feature_rows_schema(file, {}), ())
        by_digest = {at.digest: at for day in reversed(self._tables) if (at := day[side]) is not None}
        used = [by_digest[digest] for digest in self._kept[side].tables]
        first = used[0] if used else self._workspace.need(f"{side}_features_fg", self._window[0].ds)
        encoded = tables.open(first).schema
        schema = feature_rows_schema(file, features.types(encoded, _words(first)))

        def batches() -> Iterator[pa.RecordBatch]:
            if not used:
                yield discretise_rows(encoded.empty_table(), features, file=file, where=_words(first), is_first=True)
            for table in used:
                yield self._rows_of(side, table, schema, is_first=table is first)

        return Stream(schema, batches())

    def samples(self, item_index: IdIndex, history: HistoryCsr) -> Stream:
        """Returns samples.arrow: a batch per day.

        Args:
            item_index: the corpus; rows of other items are left out.
            history: the histories of all users.

        Raises (also when drawn):
            SchemaError: a feature is of another type than on the days before, or see `discretise_day`.
        """
        first = self._window[0]
        schema = samples_schema(self._context.types(self._workspace.tables.open(first).schema, _words(first)))
        days = range(len(self._window))
        return Stream(schema, (self._day(number, schema, item_index, history) for number in days))

    def _mark(self, positive: Manifest, tables: Mapping[str, Manifest | None]) -> None:
        rows = self._workspace.tables.read(positive, list(ROW_COLUMNS.values()))
        for side, table in tables.items():
            if table is not None and self._features[side].names:
                self._kept[side].mark(table.digest, table.rows, rows.column(ROW_COLUMNS[side]))

    def _rows_of(self, side: str, table: Manifest, schema: pa.Schema, *, is_first: bool) -> pa.RecordBatch:
        features, where = self._features[side], _words(table)
        parts = self._workspace.tables.batches(table, features.columns)
        kept = pa.Table.from_batches(self._kept[side].select(table.digest, parts))
        batch = discretise_rows(kept, features, file=_file(side), where=where, is_first=is_first)
        require_types(where, batch.schema, schema)
        return batch

    def _day(self, number: int, schema: pa.Schema, item_index: IdIndex, history: HistoryCsr) -> pa.RecordBatch:
        positive, config = self._window[number], self._workspace.config
        table = self._workspace.tables.read(positive, self._wanted, as_dictionaries=[col.USER_ID, col.ITEM_ID])
        digests = {side: None if at is None else at.digest for side, at in self._tables[number].items()}
        batch = discretise_day(
            table,
            day=number,
            day_start_ms=start_of_day_ms(positive.ds, config.calendar.timezone),
            feature_rows={row: self._kept[side].find(digests[side], table.column(row)) for side, row in ROW_COLUMNS.items()},
            features=self._context,
            item_index=item_index,
            history=history,
            cutoff=config.model.history,
            weights=self._weights,
        )
        require_types(_words(positive), batch.schema, schema)
        return batch


def _feature_tables(workspace: Workspace, window: Sequence[Manifest]) -> list[Mapping[str, Manifest | None]]:
    """Returns for each day the feature table of each side that its positives point into, None on the first day of all.

    Raises:
        ProvenanceError: naming every table that was made again since.
    """
    held = FeatureTables(workspace)
    found: list[Mapping[str, Manifest | None]] = []
    faults: dict[str, Fault] = {}
    for positive in window:
        day: dict[str, Manifest | None] = {}
        for side in ROW_COLUMNS:
            try:
                day[side] = held.find_for_positives(side, positive)
            except ProvenanceError as error:
                faults |= {str(fault): fault for fault in error.faults}
        found.append(day)
    if faults:
        raise ProvenanceError(list(faults.values()))
    return found


def _words(manifest: Manifest) -> str:
    return f"table {manifest.asset}, day {manifest.ds}"


def _file(side: str) -> str:
    return f"{side}_rows.arrow"


def read_history(
    workspace: Workspace,
    past: Sequence[Manifest],
    item_index: IdIndex,
    bucketizer: Bucketizer,
    scratch: ScratchArrays,
    *,
    typed_by: Manifest | None = None,
) -> HistoryCsr:
    """Returns the histories of stored days of user_history_fg, with the features of sequences that are kept.

    Args:
        workspace: holds the days.
        past: the days.
        item_index: the corpus.
        bucketizer: which features are kept and what becomes of their values.
        scratch: where the arrays lie; they are gone with it.
        typed_by: a day whose columns tell the types of ids where there are no days.

    Raises:
        WindowIncompleteError: there are no days, and nothing tells their types.
        SchemaError: see `build_history`.
    """

    def days(columns: Sequence[str]) -> Iterator[pa.Table]:
        if not past and typed_by is not None:
            yield workspace.tables.open(typed_by).schema.empty_table()
        for day in past:
            yield workspace.tables.read(day, [column.name for column in day.columns if column.name in columns])

    names = indexed_features(bucketizer, "sequence").names
    return build_history(days, item_index, bucketizer.bucketize, features=names, allocate=scratch)


TRAIN_FILES = ("samples", "user_rows", "item_rows", "history", "users", "items")
"""The Arrow files of train_samples, each the argument of its name of `TrainData`; with hard negatives one more."""


def negative_items(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Weighs every item known on the eve by its popularity in the window."""
    for ds in days:
        items = workspace.need("item_features_fg", day_before(ds))
        window = workspace.need_all("positive_sample", window_days(ds, workspace.config.window.days))
        taken = (workspace.tables.read(day, [col.ITEM_ID], as_dictionaries=[col.ITEM_ID]) for day in window)
        counts = count_positives(taken)
        table = weigh_items(workspace.tables.read(items), counts, workspace.config.negative_items)
        manifest = workspace.write_table(sample_tables.NEGATIVE_ITEMS, ds, table, [items, window])
        yield StepResult(manifest, {"items_with_positives": counts.num_rows, "alpha": workspace.config.negative_items.alpha})


def train_samples(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Turns the window into memory-mapped rows of embedding indices."""
    for ds in days:
        with workspace.tables.partitions.staging() as scratch:
            yield _train_samples(workspace, ds, ScratchArrays(scratch))


def _train_samples(workspace: Workspace, ds: str, scratch: ScratchArrays) -> StepResult:
    _check_event_weights(workspace)
    bucketizer, config_inputs = open_bucketizer(workspace, ds)
    window = workspace.need_all("positive_sample", window_days(ds, workspace.config.window.days))
    rows = WindowRows(workspace, window, bucketizer)
    corpus = workspace.need("negative_items", ds)
    item_index, items = _corpus(workspace, corpus, bucketizer)
    sequences = indexed_features(bucketizer, "sequence")
    past = find_history_days(workspace, ds) if sequences.names or _needs_past(workspace) else []
    shown = _shown(workspace, window)
    eve = workspace.need("user_history_fg", day_before(ds))
    history = read_history(workspace, past, item_index, bucketizer, scratch, typed_by=eve)
    histories, users = history.to_tables()
    tables: dict[str, pa.Table] = {
        TrainSamplesFile.HISTORY: histories,
        TrainSamplesFile.USERS: users,
        TrainSamplesFile.ITEMS: items,
    }
    if shown:
        tables[TrainSamplesFile.HARD_NEGATIVES] = _hard_negatives(workspace, shown, item_index, history)
    files: dict[str, pa.Table | Stream] = {
        TrainSamplesFile.SAMPLES: rows.samples(item_index, history),
        TrainSamplesFile.USER_ROWS: rows.feature_rows("user"),
        TrainSamplesFile.ITEM_ROWS: rows.feature_rows("item"),
        **tables,
    }
    manifest = workspace.artifacts.publish(
        "train_samples",
        ds,
        files,
        row_file=TrainSamplesFile.SAMPLES,
        columns=tuple(column for name, content in files.items() for column in _columns(name, content.schema)),
        inputs=digests([*config_inputs, corpus, rows.built_from, past, shown]),
    )
    facts = {
        "samples": manifest.rows,
        "samples_outside_corpus": sum(day.rows for day in window) - manifest.rows,
        "users_with_history": users.num_rows,
        "history_events": histories.num_rows,
        "history_days": len(past),
        "corpus_items": items.num_rows,
    }
    return StepResult(manifest, facts | ({"hard_negatives": tables[TrainSamplesFile.HARD_NEGATIVES].num_rows} if shown else {}))


def _needs_past(workspace: Workspace) -> bool:
    """Tells whether it must be known what users took, also where no tower reads it."""
    model, training = workspace.config.model, workspace.config.training
    return bool(model.masks_user_positives or model.has_hard_negatives or model.min_history or training.validation_days)


def _check_event_weights(workspace: Workspace) -> None:
    """Checks that only positive events have a weight: no other is trained on.

    Raises:
        ConfigError: naming those that are not.
    """
    positive = workspace.config.events.positive
    odd = sorted(set(workspace.config.model.event_weights) - set(positive))
    if odd:
        where, expected = "configuration, key model.event_weights", f"events of events.positive: {', '.join(positive)}"
        raise ConfigError(Fault(where, expected, ", ".join(odd), "remove them, or make them positive events"))


def _shown(workspace: Workspace, window: Sequence[Manifest]) -> list[Manifest]:
    """Returns the days that tell what users were shown, none where no sampler asks for them.

    The positives of the window are of these very tables: `WindowRows` has checked it.
    """
    is_asked = workspace.config.model.has_hard_negatives
    return workspace.need_all("sample_fg", [day.ds for day in window]) if is_asked else []


def _hard_negatives(workspace: Workspace, shown: Sequence[Manifest], corpus: IdIndex, history: HistoryCsr) -> pa.Table:
    days = (workspace.tables.read(day, list(HARD_NEGATIVE_COLUMNS)) for day in shown)
    exposure = workspace.config.events.exposure
    return find_hard_negatives(days, exposure_events=exposure, item_index=corpus, history=history)


def _corpus(workspace: Workspace, corpus: Manifest, bucketizer: Bucketizer) -> tuple[IdIndex, pa.Table]:
    """Returns the items that can be recalled, and items.arrow."""
    negatives = workspace.tables.read(corpus)
    features, distribution = indexed_features(bucketizer, "item"), workspace.config.negative_items
    return IdIndex(negatives.column(col.ITEM_ID)), discretise_items(negatives, features, distribution)


def _columns(file: str, schema: pa.Schema) -> list[Column]:
    """Returns the columns of an Arrow file as `file: column`, with the meaning that its schema carries."""
    return [
        Column(f"{file}: {field.name}", str(field.type), (field.metadata or {}).get(b"description", b"").decode())
        for field in schema
    ]


def find_history_days(workspace: Workspace, ds: str) -> list[Manifest]:
    """Returns the stored days of user history before a day, limited by window.history_days."""
    last = workspace.config.window.history_days
    first = day_before(ds, last) if last is not None else ""
    stored = [day for day in workspace.tables.partitions.days("user_history_fg") if first <= day < ds]
    gaps = len(days_between(stored[0], day_before(ds))) - len(stored) if stored else 0
    if gaps:
        workspace.log(f"user_history_fg lacks {gaps} days between {stored[0]} and {ds}: histories are read without them")
    return workspace.need_all("user_history_fg", stored)
