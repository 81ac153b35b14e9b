"""Vectors: both towers over the encoded features of the eve."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.samples.id_index import IdIndex
from dssm_assets.steps.feature_config import indexed_features, open_bucketizer, towers_of
from dssm_assets.steps.workspace import StepResult, Workspace, check_made_from, day_before, start_of_day_ms

BATCH_ROWS = 4096


def item_vectors(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Runs the item tower over the corpus."""
    from dssm_assets.core.evaluation.specs import ITEM_VECTORS
    from dssm_assets.core.training.inference import infer_item_vectors

    for ds in days:
        model, towers = _towers(workspace, ds)
        corpus, stored = workspace.need("negative_items", ds), workspace.need("train_samples", ds)
        vectors = infer_item_vectors(towers, workspace.artifacts.map_table(stored, "items.arrow"), BATCH_ROWS)
        ids = workspace.tables.read(corpus, [col.ITEM_ID]).column(col.ITEM_ID)
        table = pa.table({col.ITEM_ID: ids, col.ITEM_TOWER_EMB: _fixed_lists(vectors)})
        yield StepResult(workspace.write_table(ITEM_VECTORS, ds, table, [model, corpus, stored]), {"dims": vectors.shape[1]})


def user_vectors(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Runs the user tower over all users, with their history up to the end of the day before."""
    for ds in days:
        yield _user_vectors(workspace, ds)


def _user_vectors(workspace: Workspace, ds: str) -> StepResult:
    from dssm_assets.core.evaluation.specs import USER_VECTORS
    from dssm_assets.core.training.inference import infer_user_vectors

    model, towers = _towers(workspace, ds)
    stored, features = workspace.need("train_samples", ds), workspace.need("user_features_fg", day_before(ds))
    bucketizer, config_inputs = open_bucketizer(workspace, ds)
    encoded = workspace.tables.read(features)
    indices = indexed_features(bucketizer, "user").of(encoded, "table user_features_fg")
    histories = workspace.artifacts.map_table(stored, "users.arrow")
    rows = IdIndex(histories.column(col.USER_ID)).lookup(encoded.column(col.USER_ID))
    starts, ends = (_bounds(histories, name, rows) for name in ("history_start", "history_end"))
    vectors = infer_user_vectors(
        towers,
        pa.table(indices),
        history_start=starts,
        history_end=ends,
        history=workspace.artifacts.map_table(stored, "history.arrow"),
        as_of_ms=start_of_day_ms(ds, workspace.config.calendar.timezone),
        batch_size=BATCH_ROWS,
    )
    table = pa.table({col.USER_ID: encoded.column(col.USER_ID), col.USER_TOWER_EMB: _fixed_lists(vectors)})
    manifest = workspace.write_table(USER_VECTORS, ds, table, [model, stored, features, *config_inputs])
    return StepResult(manifest, {"dims": vectors.shape[1], "users_without_history": int((rows < 0).sum())})


def _towers(workspace: Workspace, ds: str) -> tuple[Any, Any]:
    from dssm_assets.core.training.checkpoint import model_from_bytes

    settings = towers_of(workspace, ds)
    manifest = workspace.need("dssm_model", ds)
    samples = workspace.need("train_samples", ds)
    check_made_from(manifest, settings.manifest, samples)
    check_made_from(samples, *(workspace.need(name, ds) for name in ("feature_config", "feature_counts", "negative_items")))
    return manifest, model_from_bytes(workspace.artifacts.read_bytes(manifest, "model.bin"), settings.spec)


def _bounds(histories: pa.Table, name: str, rows: Any) -> npt.NDArray[np.int64]:
    bounds = histories.column(name).to_numpy()
    found = np.zeros(len(rows), np.int64)
    found[rows >= 0] = bounds[rows[rows >= 0]]
    return found


def _fixed_lists(vectors: Any) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1), pa.float32()), vectors.shape[1])
