"""Training's input: the corpus of negatives and the rows in index form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.features.bucketizer import Bucketizer
from dssm_assets.core.samples import specs
from dssm_assets.core.samples.hard_negatives import COLUMNS, hard_negatives
from dssm_assets.core.samples.history import HistoryCsr
from dssm_assets.core.samples.id_index import IdIndex
from dssm_assets.core.samples.negative_items import count_positives
from dssm_assets.core.samples.negative_items import negative_items as weigh_items
from dssm_assets.core.samples.train_samples import item_rows
from dssm_assets.steps.feature_config import indexed_features, open_bucketizer
from dssm_assets.steps.past import placed_history
from dssm_assets.steps.window_rows import WindowRows
from dssm_assets.steps.workspace import StepResult, Workspace, day_before, days_between, digests, window_days
from dssm_assets.storage.artifact_store import Stream
from dssm_assets.storage.manifest import Column, Manifest
from dssm_assets.storage.scratch_arrays import ScratchArrays

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
        manifest = workspace.write_table(specs.NEGATIVE_ITEMS, ds, table, [items, window])
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
    past = history_days(workspace, ds) if sequences.names or _needs_past(workspace) else []
    shown = _shown(workspace, window)
    eve = workspace.need("user_history_fg", day_before(ds))
    history = placed_history(workspace, past, item_index, bucketizer, scratch, typed_by=eve)
    histories, users = history.to_tables()
    tables = {"history.arrow": histories, "users.arrow": users, "items.arrow": items}
    if shown:
        tables["hard_negatives.arrow"] = _hard_negatives(workspace, shown, item_index, history)
    files: dict[str, pa.Table | Stream] = {
        "samples.arrow": rows.samples(item_index, history),
        "user_rows.arrow": rows.feature_rows("user"),
        "item_rows.arrow": rows.feature_rows("item"),
        **tables,
    }
    manifest = workspace.artifacts.publish(
        "train_samples",
        ds,
        files,
        row_file="samples.arrow",
        columns=tuple(column for name, content in files.items() for column in _columns(name, content.schema)),
        inputs=digests([*config_inputs, corpus, rows.made_from, past, shown]),
    )
    facts = {
        "samples": manifest.rows,
        "samples_outside_corpus": sum(day.rows for day in window) - manifest.rows,
        "users_with_history": users.num_rows,
        "history_events": histories.num_rows,
        "history_days": len(past),
        "corpus_items": items.num_rows,
    }
    return StepResult(manifest, facts | ({"hard_negatives": tables["hard_negatives.arrow"].num_rows} if shown else {}))


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
    days = (workspace.tables.read(day, list(COLUMNS)) for day in shown)
    exposure = workspace.config.events.exposure
    return hard_negatives(days, exposure_events=exposure, item_index=corpus, history=history)


def _corpus(workspace: Workspace, corpus: Manifest, bucketizer: Bucketizer) -> tuple[IdIndex, pa.Table]:
    """Returns the items that can be recalled, and items.arrow."""
    negatives = workspace.tables.read(corpus)
    features, law = indexed_features(bucketizer, "item"), workspace.config.negative_items
    return IdIndex(negatives.column(col.ITEM_ID)), item_rows(negatives, features, law)


def _columns(file: str, schema: pa.Schema) -> list[Column]:
    """Returns the columns of an Arrow file as `file: column`, with the meaning that its schema carries."""
    return [
        Column(f"{file}: {field.name}", str(field.type), (field.metadata or {}).get(b"description", b"").decode())
        for field in schema
    ]


def history_days(workspace: Workspace, ds: str) -> list[Manifest]:
    """Returns the stored days of user history before a day, limited by window.history_days."""
    last = workspace.config.window.history_days
    first = day_before(ds, last) if last is not None else ""
    stored = [day for day in workspace.tables.partitions.days("user_history_fg") if first <= day < ds]
    gaps = len(days_between(stored[0], day_before(ds))) - len(stored) if stored else 0
    if gaps:
        workspace.log(f"user_history_fg lacks {gaps} days between {stored[0]} and {ds}: histories are read without them")
    return workspace.need_all("user_history_fg", stored)
