"""Vectors as they are stored: those of the towers, with the prior of a model that has one behind them.

Belongs here: priors of the items of a day, widening, users of several interests as one row. Does not belong here: running
the towers and writing (`vectors.py`, `serving_vectors.py`).

    item  v, or (v, prior)
    user  u, or (u, 1); of several interests one after another, each with its own 1

Letters: I items, U users, K interests, D output width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dssm_assets.core import columns as col
from dssm_assets.core.samples.id_index import IdIndex
from dssm_assets.steps.workspace import Workspace, days_between
from dssm_assets.storage.manifest import Manifest

Vectors = npt.NDArray[np.float32]


def stored_items(vectors: Vectors, priors: Vectors | None) -> Vectors:
    """Returns item vectors as they are stored [I, D], or [I, D + 1] with the items' priors [I]."""
    from dssm_assets.core.models.prior import with_prior

    return vectors if priors is None else with_prior(vectors, priors)


def stored_users(vectors: Vectors, spec: Any) -> Vectors:
    """Returns user vectors [U, D] or [U, K, D] as they are stored, one row of `spec.user_vector_width` each."""
    from dssm_assets.core.models.prior import with_one

    widened = with_one(vectors) if spec.prior else vectors
    return widened.reshape(len(widened), spec.user_vector_width)


def window_priors(workspace: Workspace, model: Manifest, samples: Manifest, item_count: int) -> Vectors:
    """Returns the priors [I] of the corpus by the positive samples that the model was trained on."""
    table = workspace.artifacts.map_table(samples, "samples.arrow").select(["item_index", "day"])
    items, days = (table.column(name).to_numpy() for name in table.column_names)
    return _priors(workspace, model, items, workspace.config.window.days - days, item_count)


def recent_priors(workspace: Workspace, model: Manifest, recent: Sequence[Manifest], after: str, items: IdIndex) -> Vectors:
    """Returns the priors [I] of items by positive samples of days, read one after the other.

    Args:
        workspace: holds the model and the days.
        model: holds the prior.
        recent: positive_sample of days before `after`.
        after: the day that is scored, in the text of a partition.
        items: any items; samples of others are left out.
    """
    rows, ages = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for day in recent:
        found = items.lookup(workspace.tables.read(day, [col.ITEM_ID]).column(0), where=f"table {day.key}, column item_id")
        rows.append(found[found >= 0].astype(np.int64))
        ages.append(np.full(len(rows[-1]), len(days_between(day.ds, after)) - 1))
    return _priors(workspace, model, np.concatenate(rows), np.concatenate(ages), len(items))


def _priors(workspace: Workspace, model: Manifest, items: Any, age_days: Any, item_count: int) -> Vectors:
    from dssm_assets.core.models.prior import FILE, Prior, recent_counts

    prior = Prior.from_json(workspace.artifacts.read_bytes(model, FILE))
    recent = recent_counts(items, age_days, prior.half_life_days, item_count)
    return prior.prior_of(np.bincount(items, minlength=item_count).astype(np.float64), recent)
