"""Steps of experiments: the workspace of a run with other settings, and the table that compares the results.

Belongs here: opening that workspace, storing its settings, comparing hit rates. Does not belong here: which settings there
are (`core/experiments.py`) and the forms that they come from (`defs/run_settings.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.experiments import (
    EXPERIMENTS,
    REGULAR,
    Experiment,
    apply_changes,
    compare_totals,
    comparison_markdown,
    describe_changes,
    drop_configured,
)
from dssm_assets.steps.feature_config import step_config, training_config
from dssm_assets.steps.workspace import StepResult, Workspace, duckdb_engine
from dssm_assets.storage.artifacts import ArtifactStore
from dssm_assets.storage.overlay import OverlayStore, experiment_names
from dssm_assets.storage.tables import TableStore

SETTINGS = "settings"
_FILE = "settings.json"
_SCORED = "total_hit_rate"


def open_experiment(regular: Workspace, experiment: Experiment, asset: str, ds: str) -> tuple[Workspace, Experiment]:
    """Returns the workspace of an experiment on a day, and the experiment with all its settings of that day.

    Settings from an earlier run of the same name and day stay in force unless this run changes them. For dssm_model, the
    configs that depend on the settings (step_config, training_config) are written first.

    Raises:
        ConfigError: a setting is out of bounds, or the day has no regular partition of the asset to compare with.
    """
    if regular.find(asset, ds) is None:
        where = f"experiment {experiment.name}, {asset} of {ds}"
        remedy = f"run dssm-assets materialize {asset} --from {ds}"
        raise ConfigError(Fault(where, "a regular partition to compare with", "none", remedy))
    partitions = OverlayStore(regular.tables.partitions, experiment.name)
    artifacts = ArtifactStore(partitions, regular.artifacts.cache)
    before = _stored_settings(artifacts, ds)
    known = Experiment(experiment.name, drop_configured(regular.config, before | dict(experiment.changes)))
    workspace = _overlay(regular, partitions, known)
    if known.changes != before or partitions.find(SETTINGS, ds) is None:
        artifacts.publish(SETTINGS, ds, {_FILE: json.dumps(dict(known.changes), sort_keys=True).encode()})
    if asset == "dssm_model":
        for _ in (*step_config(workspace, [ds]), *training_config(workspace, [ds])):
            pass
    return workspace, known


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
    return _overlay(regular, partitions, Experiment(name, drop_configured(regular.config, settings)))


def experiments(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Compares the hit rates of each day's experiments with those of the regular run."""
    for ds in days:
        yield _compare_experiments(workspace, ds)


def _compare_experiments(workspace: Workspace, ds: str) -> StepResult:
    regular = workspace.need(_SCORED, ds)
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
        changes[name] = describe_changes(_stored_settings(ArtifactStore(store, workspace.artifacts.cache), ds)) or "nothing"
    table = compare_totals(totals, changes)
    manifest = workspace.tables.write(EXPERIMENTS, ds, table, inputs=inputs)
    return StepResult(manifest, {"experiments": len(totals) - 1}, report_markdown=comparison_markdown(table, ds))


def _overlay(regular: Workspace, partitions: OverlayStore, experiment: Experiment) -> Workspace:
    """Returns a workspace with an experiment's settings, whose partitions hide the regular ones."""
    loaded = replace(regular.loaded, config=apply_changes(regular.config, experiment.changes))
    tables, artifacts = TableStore(partitions), ArtifactStore(partitions, regular.artifacts.cache)
    return replace(regular, loaded=loaded, tables=tables, artifacts=artifacts, engine=duckdb_engine(loaded, tables))


def _stored_settings(artifacts: ArtifactStore, ds: str) -> dict[str, Any]:
    manifest = artifacts.partitions.find(SETTINGS, ds)
    return {} if manifest is None else dict(json.loads(artifacts.read_bytes(manifest, _FILE)))
