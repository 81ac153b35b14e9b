"""Steps of the vectors: the item tower over the corpus, the user tower over all users as of the previous day.

The model's tables and the histories are memory maps, so all processes of `evaluation.num_processes` share what they read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdIndex, RowNumbers
from dssm_assets.core.arrays.ragged import combine_chunks
from dssm_assets.core.evaluation.evaluation_tables import ITEM_VECTORS, USER_VECTORS
from dssm_assets.core.file_names import ModelFile, TrainSamplesFile
from dssm_assets.core.models.group_codes import GroupCodes, read_keys
from dssm_assets.core.models.prior import Prior, ages_in_days, append_one, append_prior, decayed_counts
from dssm_assets.core.models.tower_spec import TowerSpec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training.inference import ItemInference, UserInference
from dssm_assets.steps.feature_config import RunSettings, indexed_features, open_bucketizer, towers_of
from dssm_assets.steps.fit_job import map_model
from dssm_assets.steps.vector_parts import VectorPart, VectorPartition, VectorSource, write_vectors
from dssm_assets.steps.workspace import StepResult, Workspace, check_built_from, day_before, each_day, start_of_day_ms
from dssm_assets.storage.manifest import Manifest

BATCH_ROWS = 4096
"""Rows that a tower reads at a time."""
VectorArray = npt.NDArray[np.float32]


@each_day
def item_vectors(workspace: Workspace, ds: str) -> StepResult:
    return write_vectors(workspace, ItemVectors, ds)


@each_day
def user_vectors(workspace: Workspace, ds: str) -> StepResult:
    """Runs the user tower over all users, with their history up to the end of the previous day."""
    return write_vectors(workspace, UserVectors, ds)


class ItemVectors(VectorSource):
    """The item tower over the corpus."""

    def __init__(self, workspace: Workspace, ds: str) -> None:
        super().__init__(workspace, ds)
        model, towers = open_towers(workspace, ds)
        self._corpus, samples = workspace.need("negative_items", ds), workspace.need("train_samples", ds)
        self._items = workspace.artifacts.map_table(samples, TrainSamplesFile.ITEMS)
        self._inference = ItemInference(towers, BATCH_ROWS)
        self._group_codes = read_group_codes(workspace, model)
        self._priors = read_window_priors(workspace, model, samples, ds, self._items.num_rows) if towers.spec.prior else None
        width, kind = towers.spec.item_vector_width, _id_type(workspace, self._corpus, col.ITEM_ID)
        self.partition = VectorPartition(ITEM_VECTORS, ds, kind, width, self._corpus.rows)
        self.built_from = (model, self._corpus, samples)

    def parts(self, first: int, end: int, facts: dict[str, int]) -> Iterator[VectorPart]:
        """Yields the items first .. end - 1 of the corpus."""
        for batch in self._workspace.tables.rows(self._corpus, [col.ITEM_ID], first, end):
            part = slice(first, first + batch.num_rows)
            priors = None if self._priors is None else self._priors[part]
            items = self._items[part]
            vectors = with_group_codes(self._inference.vectors(items), items, self._group_codes)
            yield batch.column(0), pack_item_vectors(vectors, priors)
            first += batch.num_rows


class UserVectors(VectorSource):
    """The user tower over the users of the previous day."""

    def __init__(self, workspace: Workspace, ds: str) -> None:
        super().__init__(workspace, ds)
        model, towers = open_towers(workspace, ds)
        self._spec = towers.spec
        samples, self._features = workspace.need("train_samples", ds), workspace.need("user_features_fg", day_before(ds))
        bucketizer, config_inputs = open_bucketizer(workspace, ds)
        self._indexed = indexed_features(bucketizer, "user")
        self._users = workspace.artifacts.map_table(samples, TrainSamplesFile.USERS)
        history = workspace.artifacts.map_table(samples, TrainSamplesFile.HISTORY)
        as_of_ms = start_of_day_ms(ds, workspace.config.calendar.timezone)
        self._inference = UserInference(towers, history, as_of_ms=as_of_ms, batch_size=BATCH_ROWS)
        self._known = IdIndex(self._users.column(col.USER_ID), where="train_samples, users.arrow")
        width, kind = self._spec.user_vector_width, _id_type(workspace, self._features, col.USER_ID)
        self.partition = VectorPartition(USER_VECTORS, ds, kind, width, self._features.rows)
        self.built_from = (model, samples, self._features, *config_inputs)

    def parts(self, first: int, end: int, facts: dict[str, int]) -> Iterator[VectorPart]:
        """Yields the users first .. end - 1 of user_features_fg; counts users_without_history in the facts."""
        for batch in self._workspace.tables.rows(self._features, [col.USER_ID, *self._indexed.columns], first, end):
            rows = self._known.lookup(batch.column(0), where="table user_features_fg, column user_id")
            facts["users_without_history"] = facts.get("users_without_history", 0) + int((rows < 0).sum())
            starts, ends = (self._history_bounds(name, rows) for name in ("history_start", "history_end"))
            indices = pa.table(self._indexed.to_indices(pa.Table.from_batches([batch]), "table user_features_fg"))
            yield batch.column(0), pack_user_vectors(self._inference.vectors(indices, starts, ends), self._spec)

    def _history_bounds(self, name: str, rows: RowNumbers) -> npt.NDArray[np.int64]:
        """Returns a bound of each user's history; 0 for a user without one."""
        bounds = np.zeros(len(rows), np.int64)
        bounds[rows >= 0] = combine_chunks(self._users.column(name)).to_numpy()[rows[rows >= 0]]
        return bounds


def read_group_codes(workspace: Workspace, model: Manifest) -> GroupCodes | None:
    """Returns the codes of items without an event; None: they have none in this model."""
    if all(file.name != ModelFile.GROUP_CODES for file in model.files):
        return None
    return GroupCodes.from_bytes(workspace.artifacts.read_bytes(model, ModelFile.GROUP_CODES))


def with_group_codes(vectors: VectorArray, items: pa.Table, codes: GroupCodes | None) -> VectorArray:
    """Returns item vectors [I, D], those without a code of their own with the code of their group."""
    return vectors if codes is None else codes.fill_in(vectors, read_keys(items, codes.features))


def pack_item_vectors(vectors: VectorArray, priors: VectorArray | None) -> VectorArray:
    """Returns item vectors as they are stored: [I, D], or [I, D + 1] with the items' priors [I]."""
    return vectors if priors is None else append_prior(vectors, priors)


def pack_user_vectors(vectors: VectorArray, spec: TowerSpec) -> VectorArray:
    """Returns user vectors [U, D] or [U, K, D] as they are stored: one row of `spec.user_vector_width` per user."""
    with_ones = append_one(vectors) if spec.prior else vectors
    return with_ones.reshape(len(with_ones), spec.user_vector_width)


def read_window_priors(workspace: Workspace, model: Manifest, samples: Manifest, ds: str, item_count: int) -> VectorArray:
    """Returns the priors [I] of the corpus for a day, from the positive samples that the model was trained on."""
    table = workspace.artifacts.map_table(samples, TrainSamplesFile.SAMPLES).select(["item_index", col.EVENT_TIME_MS])
    items, times = (table.column(name).to_numpy() for name in table.column_names)
    return _compute_priors(workspace, model, items, times, ds, item_count)


def read_recent_priors(
    workspace: Workspace, model: Manifest, recent: Sequence[Manifest], after: str, items: IdIndex
) -> VectorArray:
    """Returns the priors [I] of items from the positive samples of days. One day is in memory at a time.

    Args:
        recent: positive_sample of days before `after`.
        after: the day that is scored, as YYYY-MM-DD.
        items: any items; samples of others are left out.
    """
    rows, times = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for day in recent:
        table = workspace.tables.read(day, [col.ITEM_ID, col.EVENT_TIME_MS])
        found = items.lookup(table.column(col.ITEM_ID), where=f"table {day.key}, column item_id")
        rows.append(found[found >= 0].astype(np.int64))
        times.append(table.column(col.EVENT_TIME_MS).to_numpy()[found >= 0])
    return _compute_priors(workspace, model, np.concatenate(rows), np.concatenate(times), after, len(items))


def _compute_priors(workspace: Workspace, model: Manifest, items: Any, times_ms: Any, ds: str, item_count: int) -> VectorArray:
    prior = Prior.model_validate_json(workspace.artifacts.read_bytes(model, ModelFile.PRIOR))
    ages = ages_in_days(times_ms, start_of_day_ms(ds, workspace.config.calendar.timezone))
    recent = decayed_counts(items, ages, prior.half_life_days, item_count)
    return prior.values_for(np.bincount(items, minlength=item_count).astype(np.float64), recent)


def open_towers(workspace: Workspace, ds: str) -> tuple[Manifest, TwoTower]:
    """Returns the model of a day and its towers; raises as `find_model`."""
    manifest, settings = find_model(workspace, ds)
    return manifest, map_model(workspace.artifacts.local_path(manifest, ModelFile.WEIGHTS), settings.spec)


def find_model(workspace: Workspace, ds: str) -> tuple[Manifest, RunSettings]:
    """Returns the model of a day and its settings.

    Raises:
        PartitionMissingError: the model or what it was built from is not stored.
        ProvenanceError: what it was built from was written again since.
    """
    settings = towers_of(workspace, ds)
    manifest = workspace.need("dssm_model", ds)
    samples = workspace.need("train_samples", ds)
    check_built_from(manifest, settings.manifest, samples)
    check_built_from(samples, *(workspace.need(name, ds) for name in ("feature_config", "feature_counts", "negative_items")))
    return manifest, settings


def _id_type(workspace: Workspace, manifest: Manifest, column: str) -> pa.DataType:
    return workspace.tables.open(manifest).schema.field(column).type
