"""Training: the corpus of negatives, the rows in index form, the fitted towers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.features.bucketizer import Bucketizer
from dssm_assets.core.samples import specs
from dssm_assets.core.samples.history import build_history
from dssm_assets.core.samples.id_index import IdIndex
from dssm_assets.core.samples.negative_items import count_positives
from dssm_assets.core.samples.negative_items import negative_items as weigh_items
from dssm_assets.core.samples.train_samples import item_rows
from dssm_assets.steps.feature_config import indexed_features, open_bucketizer, towers_of
from dssm_assets.steps.window_rows import WindowRows
from dssm_assets.steps.workspace import StepResult, Workspace, day_before, days_between, digests, window_days
from dssm_assets.storage.manifest import Column, Manifest

PROGRESS_SECONDS = 5.0
TRAIN_FILES = ("samples", "user_rows", "item_rows", "history", "users", "items")
"""The Arrow files of train_samples, each the argument of its name of `TrainData`."""


def negative_items(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Weighs every item known on the eve by its popularity in the window."""
    for ds in days:
        items = workspace.need("item_features_fg", day_before(ds))
        window = workspace.need_all("positive_sample", window_days(ds, workspace.config.window.days))
        counts = count_positives(workspace.tables.read(day, [col.ITEM_ID]) for day in window)
        table = weigh_items(workspace.tables.read(items), counts, workspace.config.negative_items)
        manifest = workspace.write_table(specs.NEGATIVE_ITEMS, ds, table, [items, window])
        yield StepResult(manifest, {"items_with_positives": counts.num_rows, "alpha": workspace.config.negative_items.alpha})


def train_samples(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Turns the window into memory-mapped rows of embedding indices."""
    for ds in days:
        yield _train_samples(workspace, ds)


def _train_samples(workspace: Workspace, ds: str) -> StepResult:
    bucketizer, config_inputs = open_bucketizer(workspace, ds)
    window = workspace.need_all("positive_sample", window_days(ds, workspace.config.window.days))
    rows = WindowRows(workspace, window, bucketizer)
    corpus = workspace.need("negative_items", ds)
    item_index, items = _corpus(workspace, corpus, bucketizer)
    sequences = indexed_features(bucketizer, "sequence")
    past = history_days(workspace, ds) if sequences.names or workspace.config.model.user_positive_mask else []
    history = build_history(_histories(workspace, past, ds), item_index, bucketizer.bucketize, features=sequences.names)
    histories, users = history.to_tables()
    files = {
        "samples.arrow": rows.samples(item_index, history),
        "user_rows.arrow": rows.feature_rows("user"),
        "item_rows.arrow": rows.feature_rows("item"),
        "history.arrow": histories,
        "users.arrow": users,
        "items.arrow": items,
    }
    manifest = workspace.artifacts.publish(
        "train_samples",
        ds,
        files,
        row_file="samples.arrow",
        columns=tuple(column for name, content in files.items() for column in _columns(name, content.schema)),
        inputs=digests([*config_inputs, corpus, rows.made_from, past]),
    )
    facts = {
        "samples": manifest.rows,
        "samples_outside_corpus": sum(day.rows for day in window) - manifest.rows,
        "users_with_history": users.num_rows,
        "history_events": histories.num_rows,
        "history_days": len(past),
        "corpus_items": items.num_rows,
    }
    return StepResult(manifest, facts)


def _corpus(workspace: Workspace, corpus: Manifest, bucketizer: Bucketizer) -> tuple[IdIndex, pa.Table]:
    """Returns the items that can be recalled, and items.arrow."""
    negatives = workspace.tables.read(corpus)
    return IdIndex(negatives.column(col.ITEM_ID)), item_rows(negatives, indexed_features(bucketizer, "item"))


def _columns(file: str, schema: pa.Schema) -> list[Column]:
    """Returns the columns of an Arrow file as `file: column`, with the meaning that its schema carries."""
    return [
        Column(f"{file}: {field.name}", str(field.type), (field.metadata or {}).get(b"description", b"").decode())
        for field in schema
    ]


def _histories(workspace: Workspace, past: Sequence[Manifest], ds: str) -> Iterator[pa.Table]:
    """Yields the days of history that towers or masks read; of none an empty one, for the types of its ids."""
    if not past:
        yield workspace.tables.open(workspace.need("user_history_fg", day_before(ds))).schema.empty_table()
    for day in past:
        yield workspace.tables.read(day)


def history_days(workspace: Workspace, ds: str) -> list[Manifest]:
    """Returns the stored days of user history before a day, limited by window.history_days."""
    last = workspace.config.window.history_days
    first = day_before(ds, last) if last is not None else ""
    stored = [day for day in workspace.tables.partitions.days("user_history_fg") if first <= day < ds]
    gaps = len(days_between(stored[0], day_before(ds))) - len(stored) if stored else 0
    if gaps:
        workspace.log(f"user_history_fg lacks {gaps} days between {stored[0]} and {ds}: histories are read without them")
    return workspace.need_all("user_history_fg", stored)


def dssm_model(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Fits the towers."""
    for ds in days:
        yield _dssm_model(workspace, ds)


def _dssm_model(workspace: Workspace, ds: str) -> StepResult:
    from dssm_assets.core.evaluation.charts import loss_curve_png
    from dssm_assets.core.training.checkpoint import model_to_bytes
    from dssm_assets.core.training.loop import Progress, fit
    from dssm_assets.core.training.train_data import TrainData

    settings = towers_of(workspace, ds)
    stored = workspace.need("train_samples", ds)
    data = TrainData(
        settings.spec,
        **{name: workspace.artifacts.map_table(stored, f"{name}.arrow") for name in TRAIN_FILES},
    )
    last = workspace.now()

    def progress(at: Progress) -> None:
        nonlocal last
        if at.step == at.steps or workspace.now() - last >= PROGRESS_SECONDS:
            last = workspace.now()
            workspace.log(
                f"step {at.step}/{at.steps} epoch {at.epoch + 1}, loss {at.loss:.4f}, "
                f"{at.samples_per_s:,.0f} samples/s, ETA {at.eta_s:.0f} s"
            )

    result = fit(
        data,
        settings.spec,
        model=settings.model,
        training=settings.training,
        seed=settings.seed,
        progress=progress,
        now=workspace.now,
    )
    steady = {key: value for key, value in result.report.items() if key not in {"seconds", "samples_per_s", "input_wait_frac"}}
    files = {
        "model.bin": model_to_bytes(result.two_tower),
        "towers.json": settings.spec.to_json().encode(),
        "loss_by_step.json": json.dumps([round(float(loss), 6) for loss in result.loss_by_step]).encode(),
        "report.json": json.dumps(steady, indent=1, sort_keys=True).encode(),
    }
    inputs = digests([stored, settings.manifest])
    manifest = workspace.artifacts.publish("dssm_model", ds, files, inputs=inputs, facts={"seed": settings.seed})
    return StepResult(manifest, result.report, images={"loss_curve": loss_curve_png(result.loss_by_step.tolist())})
