"""What a serving bundle is made from: the model that was evaluated on a day, and the tables of the day it is to serve from.

Belongs here: finding them and proving that they belong together. Does not belong here: making the bundle's files
(`serving_vectors.py`, `serving.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dssm_assets.core.features.bucketizer import Bucketizer
from dssm_assets.steps.feature_config import RunSettings, open_bucketizer, towers_of
from dssm_assets.steps.training import history_days
from dssm_assets.steps.workspace import Workspace, check_made_from, day_before, digests, start_of_day_ms, window_days
from dssm_assets.storage.manifest import Manifest

DAY_TABLES = ("user_features_fg", "item_features_fg", "user_history_fg")
"""Tables that say what was known at the end of a day."""


@dataclass(frozen=True)
class ServingSources:
    """A model and the day as of whose end it serves.

    Attributes:
        ds: the evaluation day.
        as_of: the last day that the vectors know of: the evaluation day, or its eve where that day's tables are lacking.
        towers: the fitted `TwoTower`.
        model: the partition that holds them, and their prior.
        settings: of the run that fitted them.
        bucketizer: of the model's feature configuration.
        config_tables: feature_config and feature_counts.
        total: the hit rates of the model.
        corpus: the items that the model was trained to find.
        users: user_features_fg of `as_of`.
        items: item_features_fg of `as_of`.
        past: user_history_fg up to `as_of`.
        recent: positive_sample of the window that ends with `as_of`.
        evaluated: all other partitions between the model and its hit rates.
    """

    ds: str
    as_of: str
    towers: Any
    model: Manifest
    settings: RunSettings
    bucketizer: Bucketizer
    config_tables: tuple[Manifest, Manifest]
    total: Manifest
    corpus: Manifest
    users: Manifest
    items: Manifest
    past: list[Manifest]
    recent: list[Manifest]
    evaluated: tuple[Manifest, ...]

    def end_ms(self, timezone: str) -> int:
        """Returns the instant at which `as_of` ends in a time zone, in unix milliseconds."""
        return start_of_day_ms(self.after, timezone)

    @property
    def after(self) -> str:
        """Returns the day after `as_of`, the first that is served."""
        return _day_after(self.as_of)

    @property
    def inputs(self) -> dict[str, str]:
        """Returns "asset/ds" -> digest of all of them."""
        own = [self.settings.manifest, *self.config_tables, self.total, self.corpus, self.users, self.items]
        return digests([*own, self.past, self.recent, *self.evaluated])


def open_sources(workspace: Workspace, ds: str) -> ServingSources:
    """Returns the sources of a day's bundle.

    Raises:
        PartitionMissingError: a partition is lacking.
        ProvenanceError: something between the model's inputs and its hit rates was made again since: what would be shipped
            is not what was evaluated.
    """
    from dssm_assets.core.training.checkpoint import model_from_bytes

    settings = towers_of(workspace, ds)
    names = ("total_hit_rate", "hit_counts", "item_vectors", "user_vectors", "dssm_model", "train_samples", "negative_items")
    total, counted, item_vectors, user_vectors, model, samples, corpus = (workspace.need(name, ds) for name in names)
    bucketizer, (config, counts) = open_bucketizer(workspace, ds)
    check_made_from(total, counted)
    check_made_from(counted, item_vectors, user_vectors)
    check_made_from(item_vectors, model)
    check_made_from(user_vectors, model)
    check_made_from(model, settings.manifest, samples)
    check_made_from(samples, config, counts, corpus)
    as_of = _as_of(workspace, ds)
    after = _day_after(as_of)
    return ServingSources(
        ds=ds,
        as_of=as_of,
        towers=model_from_bytes(workspace.artifacts.read_bytes(model, "model.bin"), settings.spec),
        model=model,
        settings=settings,
        bucketizer=bucketizer,
        config_tables=(config, counts),
        total=total,
        corpus=corpus,
        users=workspace.need("user_features_fg", as_of),
        items=workspace.need("item_features_fg", as_of),
        past=history_days(workspace, after),
        recent=workspace.need_all("positive_sample", window_days(after, workspace.config.window.days)),
        evaluated=(counted, item_vectors, user_vectors, model, samples),
    )


def _as_of(workspace: Workspace, ds: str) -> str:
    lacking = [table for table in DAY_TABLES if workspace.find(table, ds) is None]
    if not lacking:
        return ds
    workspace.log(f"{', '.join(lacking)} of {ds} are not materialized: the vectors are those of {day_before(ds)}")
    return day_before(ds)


def _day_after(ds: str) -> str:
    return day_before(ds, -1)
