"""Vectors: both towers over the encoded features of the eve.

The model's tables, the histories and where each user's lie are memory maps: what is read of them stays in the system's
cache, which all processes share (`evaluation.num_processes`).

Belongs here: what each tower reads. Does not belong here: writing (`vector_parts.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.samples.sorted_ids import SortedIds
from dssm_assets.steps.feature_config import indexed_features, open_bucketizer, towers_of
from dssm_assets.steps.stored_vectors import stored_items, stored_users, window_priors
from dssm_assets.steps.vector_parts import Part, Vectors, write_vectors
from dssm_assets.steps.workspace import StepResult, Workspace, check_made_from, day_before, start_of_day_ms
from dssm_assets.storage.manifest import Manifest

BATCH_ROWS = 4096


def item_vectors(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Runs the item tower over the corpus."""
    for ds in days:
        yield write_vectors(workspace, ItemRows, ds)


def user_vectors(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Runs the user tower over all users, with their history up to the end of the day before."""
    for ds in days:
        yield write_vectors(workspace, UserRows, ds)


class ItemRows:
    """The item tower over the corpus."""

    def __init__(self, workspace: Workspace, ds: str) -> None:
        """Opens model and tables of a day."""
        from dssm_assets.core.evaluation.specs import ITEM_VECTORS
        from dssm_assets.core.training.inference import ItemInference

        model, towers = _towers(workspace, ds)
        self._workspace = workspace
        self._corpus, stored = workspace.need("negative_items", ds), workspace.need("train_samples", ds)
        self._items = workspace.artifacts.map_table(stored, "items.arrow")
        self._inference = ItemInference(towers, BATCH_ROWS)
        self._priors = window_priors(workspace, model, stored, self._items.num_rows) if towers.spec.prior else None
        width, kind = towers.spec.item_vector_width, _id_type(workspace, self._corpus, col.ITEM_ID)
        self.vectors = Vectors(ITEM_VECTORS, ds, kind, width, self._corpus.rows)
        self.made_from: tuple[Manifest, ...] = (model, self._corpus, stored)

    def parts(self, first: int, end: int, facts: dict[str, int]) -> Iterator[Part]:
        """Yields rows of the corpus."""
        for batch in self._workspace.tables.rows(self._corpus, [col.ITEM_ID], first, end):
            part = slice(first, first + batch.num_rows)
            priors = None if self._priors is None else self._priors[part]
            yield batch.column(0), stored_items(self._inference.vectors(self._items[part]), priors)
            first += batch.num_rows


class UserRows:
    """The user tower over the users of the eve."""

    def __init__(self, workspace: Workspace, ds: str) -> None:
        """Opens model and tables of a day."""
        from dssm_assets.core.evaluation.specs import USER_VECTORS
        from dssm_assets.core.training.inference import UserInference

        model, towers = _towers(workspace, ds)
        self._workspace, self._spec = workspace, towers.spec
        stored, self._features = workspace.need("train_samples", ds), workspace.need("user_features_fg", day_before(ds))
        bucketizer, config_inputs = open_bucketizer(workspace, ds)
        self._indexed = indexed_features(bucketizer, "user")
        self._histories = workspace.artifacts.map_table(stored, "users.arrow")
        history = workspace.artifacts.map_table(stored, "history.arrow")
        as_of_ms = start_of_day_ms(ds, workspace.config.calendar.timezone)
        self._inference = UserInference(towers, history, as_of_ms=as_of_ms, batch_size=BATCH_ROWS)
        self._known = SortedIds(self._histories.column(col.USER_ID), where="train_samples, users.arrow")
        width, kind = self._spec.user_vector_width, _id_type(workspace, self._features, col.USER_ID)
        self.vectors = Vectors(USER_VECTORS, ds, kind, width, self._features.rows)
        self.made_from: tuple[Manifest, ...] = (model, stored, self._features, *config_inputs)

    def parts(self, first: int, end: int, facts: dict[str, int]) -> Iterator[Part]:
        """Yields users; counts those without history."""
        for batch in self._workspace.tables.rows(self._features, [col.USER_ID, *self._indexed.columns], first, end):
            rows = self._known.lookup(batch.column(0))
            facts["users_without_history"] = facts.get("users_without_history", 0) + int((rows < 0).sum())
            starts, ends = (_bounds(self._histories, name, rows) for name in ("history_start", "history_end"))
            indices = pa.table(self._indexed.of(pa.Table.from_batches([batch]), "table user_features_fg"))
            yield batch.column(0), stored_users(self._inference.vectors(indices, starts, ends), self._spec)


def _towers(workspace: Workspace, ds: str) -> tuple[Manifest, Any]:
    from dssm_assets.steps.fit_job import MODEL, map_model

    settings = towers_of(workspace, ds)
    manifest = workspace.need("dssm_model", ds)
    samples = workspace.need("train_samples", ds)
    check_made_from(manifest, settings.manifest, samples)
    check_made_from(samples, *(workspace.need(name, ds) for name in ("feature_config", "feature_counts", "negative_items")))
    return manifest, map_model(workspace.artifacts.local_path(manifest, MODEL), settings.spec)


def _id_type(workspace: Workspace, manifest: Manifest, column: str) -> pa.DataType:
    return workspace.tables.open(manifest).schema.field(column).type


def _bounds(histories: pa.Table, name: str, rows: Any) -> npt.NDArray[np.int64]:
    column = histories.column(name)
    bounds = column.chunk(0).to_numpy() if column.num_chunks == 1 else column.to_numpy()  # of one chunk nothing is copied
    found = np.zeros(len(rows), np.int64)
    found[rows >= 0] = bounds[rows[rows >= 0]]
    return found
