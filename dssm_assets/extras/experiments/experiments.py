"""Steps of experiments: the workspace of a run with other settings, and the table that compares the results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from dssm_assets.core.errors import ConfigError, Fault, SchemaError, remedy_of_missing
from dssm_assets.extras.experiments.experiment import (
    EXPERIMENTS,
    REGULAR,
    Cell,
    Experiment,
    PairedGain,
    compare_totals,
    comparison_markdown,
    describe_changes,
    paired_gains,
)
from dssm_assets.extras.experiments.settings import PREPARED, apply_changes, normalise_changes, reached_assets
from dssm_assets.steps.workspace import StepResult, Workspace, each_day, is_current
from dssm_assets.storage.artifacts import ArtifactStore
from dssm_assets.storage.overlay import OverlayStore, experiment_names
from dssm_assets.storage.tables import TableStore

SETTINGS = "settings"
_FILE = "settings.json"
_SCORED, _COUNTED = "total_hit_rate", "hit_counts"


def open_experiment(regular: Workspace, experiment: Experiment, asset: str, ds: str) -> tuple[Workspace, Experiment]:
    """Returns the workspace of an experiment on a day, and the experiment with all its settings of that day.

    Settings from an earlier run of the same name and day stay in force unless this run changes them. What the settings reach
    before the asset (`PREPARED`) is made first, as partitions of the experiment.

    Raises:
        ConfigError: a setting is out of bounds, or the day has no regular partition of the asset to compare with.
    """
    if regular.find(asset, ds) is None:
        where = f"experiment {experiment.name}, {asset} of {ds}"
        remedy = remedy_of_missing(asset, ds)
        raise ConfigError(Fault(where, "a regular partition to compare with", "none", remedy))
    partitions = OverlayStore(regular.tables.partitions, experiment.name)
    artifacts = ArtifactStore(partitions, regular.artifacts.cache)
    before = _stored_settings(artifacts, ds)
    known = Experiment(experiment.name, normalise_changes(regular.config, before | dict(experiment.changes)))
    workspace = _overlay(regular, partitions, known)
    _prepare(workspace, partitions, known, asset, ds)
    if known.changes != before or partitions.find(SETTINGS, ds) is None:
        artifacts.publish(SETTINGS, ds, {_FILE: json.dumps(dict(known.changes), sort_keys=True).encode()})
    return workspace, known


def check_experiment(regular: Workspace, name: str, changes: Mapping[str, Any], ds: str) -> Experiment:
    """Returns an experiment of a day with the settings that its run would have; writes nothing.

    Raises:
        ConfigError: a setting is out of bounds, or towers with these settings cannot be built.
    """
    from dssm_assets.steps.tower_checks import check_towers

    settings = read_settings(regular, name, ds) | dict(changes)
    check_towers(regular.fg_spec, apply_changes(regular.config, settings))
    return Experiment(name, normalise_changes(regular.config, settings))


def read_settings(regular: Workspace, name: str, ds: str) -> dict[str, Any]:
    """Returns the stored settings of an experiment on a day; none if no run has opened it."""
    partitions = OverlayStore(regular.tables.partitions, name)
    return _stored_settings(ArtifactStore(partitions, regular.artifacts.cache), ds)


def is_fitted(regular: Workspace, name: str, ds: str) -> bool:
    """Returns whether an experiment has towers and vectors of its own on a day, built from what it has stored."""
    partitions = OverlayStore(regular.tables.partitions, name)
    if partitions.find(SETTINGS, ds) is None:
        return False
    workspace = reopen_experiment(regular, name, ds)
    for asset in ("dssm_model", "item_vectors", "user_vectors"):
        found = workspace.find(asset, ds)
        assert isinstance(workspace.tables.partitions, OverlayStore)
        if found is None or not workspace.tables.partitions.is_own(found) or not is_current(workspace, found):
            return False
    return True


def experiment_days(regular: Workspace, name: str) -> list[str]:
    """Returns the days on which a run has opened an experiment, ascending."""
    return OverlayStore(regular.tables.partitions, name).days(SETTINGS)


def _prepare(workspace: Workspace, partitions: OverlayStore, known: Experiment, asset: str, ds: str) -> None:
    """Makes what an experiment's settings reach before an asset, and what an earlier run of it made with other settings."""
    from dssm_assets.steps import channel_weights, feature_config, statistics, training

    steps = {
        "feature_binning": statistics.feature_binning,
        "feature_config": feature_config.feature_config,
        "step_config": feature_config.step_config,
        "negative_items": training.negative_items,
        "train_samples": training.train_samples,
        "training_config": feature_config.training_config,
        "channel_weights": channel_weights.channel_weights,
    }
    reached = reached_assets(known.changes)
    for name in PREPARED.get(asset, ()):
        stored = partitions.find(name, ds)
        if name in reached or (stored is not None and partitions.is_own(stored)):
            workspace.log(f"experiment {known.name}: {name}")
            for _ in steps[name](workspace, [ds]):
                pass


def reopen_experiment(regular: Workspace, name: str, ds: str) -> Workspace:
    """Returns the workspace of an experiment that an earlier run has opened on a day, with its settings; writes nothing.

    Raises:
        ConfigError: no run has opened it.
    """
    partitions = OverlayStore(regular.tables.partitions, name)
    if partitions.find(SETTINGS, ds) is None:
        remedy = "first start the experiment's run of dssm_model: it stores the settings, then says what to start"
        raise ConfigError(Fault(f"experiment {name}", f"settings of {ds}", "none", remedy))
    settings = _stored_settings(ArtifactStore(partitions, regular.artifacts.cache), ds)
    return _overlay(regular, partitions, Experiment(name, normalise_changes(regular.config, settings)))


def read_comparison(workspace: Workspace, ds: str) -> list[dict[str, Any]]:
    """Returns the rows of the table `experiments` of a day.

    Raises:
        PartitionMissingError: if it was never materialized.
        SchemaError: if it was written before it had all of today's columns.
    """
    manifest = workspace.need(EXPERIMENTS.name, ds)
    stored = {column.name for column in manifest.columns}
    missing = sorted(column.name for column in EXPERIMENTS.columns if column.name not in stored)
    if missing:
        remedy = remedy_of_missing(EXPERIMENTS.name, ds)
        raise SchemaError(Fault(f"table experiments, day {ds}", "its columns", f"no {', '.join(missing)}", remedy))
    return list(workspace.tables.read(manifest).to_pylist())


@each_day
def experiments(workspace: Workspace, ds: str) -> StepResult:
    """Compares the hit rates of a day's experiments with those of the regular run."""
    from dssm_assets.steps.evaluation import StoredCells

    regular, counts = workspace.need(_SCORED, ds), workspace.need(_COUNTED, ds)
    config, cells = workspace.config, StoredCells(workspace, counts)
    gains: dict[str, dict[Cell, PairedGain]] = {}
    totals = {REGULAR: workspace.tables.read(regular)}
    inputs = {regular.key: regular.digest}
    changes: dict[str, str] = {}
    for name in experiment_names(workspace.tables.partitions):
        store = OverlayStore(workspace.tables.partitions, name)
        manifest = store.find(_SCORED, ds)
        if manifest is None or not store.is_own(manifest):
            continue
        totals[name] = TableStore(store).read(manifest)
        inputs[f"{name}/{manifest.key}"] = manifest.digest
        own = replace(workspace, tables=TableStore(store))
        ks = sorted(_cut_offs(totals[name]) & _cut_offs(totals[REGULAR]))
        others = StoredCells(own, own.need(_COUNTED, ds))
        gains[name] = paired_gains(others, cells, ks, config.evaluation.bootstrap_samples, config.seed)
        changes[name] = describe_changes(_stored_settings(ArtifactStore(store, workspace.artifacts.cache), ds)) or "nothing"
    table = compare_totals(totals, changes, gains)
    manifest = workspace.tables.write(EXPERIMENTS, ds, table, inputs=inputs)
    return StepResult(manifest, {"experiments": len(totals) - 1}, report_markdown=comparison_markdown(table, ds))


def _cut_offs(total: pa.Table) -> set[int]:
    return set(total.column("k").to_pylist())


def _overlay(regular: Workspace, partitions: OverlayStore, experiment: Experiment) -> Workspace:
    """Returns a workspace with an experiment's settings, whose partitions hide the regular ones."""
    return regular.over(replace(regular.loaded, config=apply_changes(regular.config, experiment.changes)), partitions)


def _stored_settings(artifacts: ArtifactStore, ds: str) -> dict[str, Any]:
    manifest = artifacts.partitions.find(SETTINGS, ds)
    return {} if manifest is None else dict(json.loads(artifacts.read_bytes(manifest, _FILE)))
