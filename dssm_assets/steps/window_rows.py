"""The rows of train_samples, in two passes over the window, with one day or one feature table held at a time.

The first pass reads which rows of the feature tables the positives point to, and that these are still the tables they
were made from. The second writes: per day the samples, per feature table the rows that are used.

Belongs here: what is read when, and the streams. Does not belong here: what a row becomes (`core/samples`), histories
and the corpus (`training.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.errors import Fault, ProvenanceError
from dssm_assets.core.features.bucketizer import Bucketizer
from dssm_assets.core.samples.history import HistoryCsr
from dssm_assets.core.samples.id_index import IdIndex
from dssm_assets.core.samples.kept_rows import KeptRows
from dssm_assets.core.samples.sample_weights import SampleWeights
from dssm_assets.core.samples.specs import feature_rows_schema, require_columns, require_types, samples_schema
from dssm_assets.core.samples.train_samples import discretise_day, discretise_rows
from dssm_assets.steps.feature_config import indexed_features
from dssm_assets.steps.feature_tables import ROWS, FeatureTables
from dssm_assets.steps.workspace import Workspace, start_of_day_ms
from dssm_assets.storage.artifact_store import Stream
from dssm_assets.storage.manifest import Manifest


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
        self._features = {side: indexed_features(bucketizer, side) for side in ROWS}
        self._kept = {side: KeptRows() for side in ROWS}
        model = workspace.config.model
        self._weights = SampleWeights(model.event_weights, model.recency_half_life_days, len(window))
        keys = [col.USER_ID, col.ITEM_ID, col.EVENT_TIME_MS, *ROWS.values(), *self._weights.columns]
        self._wanted = [*keys, *self._context.columns]
        for positive in window:
            require_columns(_words(positive), [column.name for column in positive.columns], self._wanted)
        self._tables = _feature_tables(workspace, window)
        for positive, day in zip(window, self._tables, strict=True):
            self._mark(positive, day)

    @property
    def made_from(self) -> list[Manifest]:
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
        rows = self._workspace.tables.read(positive, list(ROWS.values()))
        for side, table in tables.items():
            if table is not None and self._features[side].names:
                self._kept[side].mark(table.digest, table.rows, rows.column(ROWS[side]))

    def _rows_of(self, side: str, table: Manifest, schema: pa.Schema, *, is_first: bool) -> pa.RecordBatch:
        features, where = self._features[side], _words(table)
        parts = self._workspace.tables.batches(table, features.columns)
        kept = pa.Table.from_batches(self._kept[side].take(table.digest, parts))
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
            feature_rows={row: self._kept[side].find(digests[side], table.column(row)) for side, row in ROWS.items()},
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
        for side in ROWS:
            try:
                day[side] = held.of_positives(side, positive)
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
