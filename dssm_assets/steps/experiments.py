"""Experiments: the workspace in which a run with other settings works, and the table that compares what came of them.

Belongs here: opening that workspace, remembering its settings, reading the results side by side. Does not belong here:
which settings there are (`core/experiments.py`) and how a run is told them (`defs/experiments.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.experiments import (
    EXPERIMENTS,
    STANDING,
    Experiment,
    changed_config,
    comparison,
    comparison_markdown,
    differing,
    told,
)
from dssm_assets.steps.feature_config import step_config, training_config
from dssm_assets.steps.workspace import StepResult, Workspace, duckdb_engine
from dssm_assets.storage.artifacts import ArtifactStore
from dssm_assets.storage.partitions import OverlayStore, experiment_names
from dssm_assets.storage.tables import TableStore

SETTINGS = "settings"
_FILE = "settings.json"
_SCORED = "total_hit_rate"


def open_experiment(standing: Workspace, experiment: Experiment, asset: str, ds: str) -> tuple[Workspace, Experiment]:
    """Returns the workspace of an experiment on a day, and the experiment with all settings that it has there.

    Settings that an earlier run of that name gave on that day stay, unless this run gives them anew. For dssm_model the
    configs that its settings reach (step_config, training_config) are made first, so that what is trained is what is told.

    Raises:
        ConfigError: a setting is out of bounds; or the day has no standing partition of the asset, so that nothing could
            be compared.
    """
    if standing.find(asset, ds) is None:
        where = f"experiment {experiment.name}, {asset} of {ds}"
        remedy = f"dssm-assets materialize {asset} --from {ds}"
        raise ConfigError(Fault(where, "a standing partition to be compared with", "none", remedy))
    partitions = OverlayStore(standing.tables.partitions, experiment.name)
    artifacts = ArtifactStore(partitions, standing.artifacts.cache)
    before = _stored(artifacts, ds)
    known = Experiment(experiment.name, differing(standing.config, before | dict(experiment.changes)))
    workspace = _over(standing, partitions, known)
    if known.changes != before or partitions.find(SETTINGS, ds) is None:
        artifacts.publish(SETTINGS, ds, {_FILE: json.dumps(dict(known.changes), sort_keys=True).encode()})
    if asset == "dssm_model":
        for _ in (*step_config(workspace, [ds]), *training_config(workspace, [ds])):
            pass
    return workspace, known


def standing_experiment(standing: Workspace, name: str, ds: str) -> Workspace:
    """Returns the workspace of an experiment that a run has opened on a day, with the settings it has there; writes nothing.

    Raises:
        ConfigError: no run has.
    """
    partitions = OverlayStore(standing.tables.partitions, name)
    if partitions.find(SETTINGS, ds) is None:
        remedy = "start its run of dssm_model first: it writes the settings down and then says what to start"
        raise ConfigError(Fault(f"experiment {name}", f"settings of {ds}", "none", remedy))
    settings = _stored(ArtifactStore(partitions, standing.artifacts.cache), ds)
    return _over(standing, partitions, Experiment(name, differing(standing.config, settings)))


def _over(standing: Workspace, partitions: OverlayStore, experiment: Experiment) -> Workspace:
    """Returns the standing workspace with an experiment's partitions over its own, and the experiment's settings."""
    loaded = replace(standing.loaded, config=changed_config(standing.config, experiment.changes))
    tables, artifacts = TableStore(partitions), ArtifactStore(partitions, standing.artifacts.cache)
    return replace(standing, loaded=loaded, tables=tables, artifacts=artifacts, engine=duckdb_engine(loaded, tables))


def _stored(artifacts: ArtifactStore, ds: str) -> dict[str, Any]:
    manifest = artifacts.partitions.find(SETTINGS, ds)
    return {} if manifest is None else dict(json.loads(artifacts.read_bytes(manifest, _FILE)))


def experiments(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Puts the hit rates of each day's experiments beside the standing ones."""
    for ds in days:
        yield _experiments(workspace, ds)


def _experiments(workspace: Workspace, ds: str) -> StepResult:
    standing = workspace.need(_SCORED, ds)
    totals = {STANDING: workspace.tables.read(standing)}
    inputs = {standing.key: standing.digest}
    changes: dict[str, str] = {}
    for name in experiment_names(workspace.tables.partitions):
        store = OverlayStore(workspace.tables.partitions, name)
        manifest = store.find(_SCORED, ds)
        if manifest is None or not store.is_own(manifest):
            continue
        totals[name] = TableStore(store).read(manifest)
        inputs[f"{name}/{manifest.key}"] = manifest.digest
        changes[name] = told(_stored(ArtifactStore(store, workspace.artifacts.cache), ds)) or "nothing"
    table = comparison(totals, changes)
    manifest = workspace.tables.write(EXPERIMENTS, ds, table, inputs=inputs)
    return StepResult(manifest, {"experiments": len(totals) - 1}, report_markdown=comparison_markdown(table, ds))
