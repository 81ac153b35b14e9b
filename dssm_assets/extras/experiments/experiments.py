"""The partitions of an experiment: its settings of a day, and the workspace in which its run works."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from dssm_assets.core.errors import ConfigError, Fault, remedy_of_missing
from dssm_assets.extras.experiments.settings import PREPARED, Experiment, apply_changes, normalise_changes, reached_assets
from dssm_assets.steps.workspace import Workspace, is_current
from dssm_assets.storage.artifacts import ArtifactStore
from dssm_assets.storage.overlay import OverlayStore

SETTINGS: Final = "settings"
_FILE: Final = "settings.json"


def open_experiment(regular: Workspace, experiment: Experiment, asset: str, ds: str) -> tuple[Workspace, Experiment]:
    """Returns the workspace of an experiment on a day, and the experiment with all its settings of that day.

    Settings from an earlier run of the same name and day stay in force unless this run changes them. What the settings reach
    before the asset (`PREPARED`) is made first, as partitions of the experiment.

    Raises:
        ConfigError: a setting is out of bounds, or the day has no regular partition of the asset to compare with.
    """
    if regular.find(asset, ds) is None:
        where = f"experiment {experiment.name}, {asset} of {ds}"
        raise ConfigError(Fault(where, "a regular partition to compare with", "none", remedy_of_missing(asset, ds)))
    partitions = OverlayStore(regular.tables.partitions, experiment.name)
    before = read_settings(regular, experiment.name, ds)
    known = Experiment(experiment.name, normalise_changes(regular.config, before | dict(experiment.changes)))
    workspace = _overlay(regular, partitions, known.changes)
    _prepare(workspace, partitions, known, asset, ds)
    if known.changes != before or partitions.find(SETTINGS, ds) is None:
        content = json.dumps(dict(known.changes), sort_keys=True).encode()
        workspace.artifacts.publish(SETTINGS, ds, {_FILE: content})
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
    return _overlay(regular, partitions, normalise_changes(regular.config, read_settings(regular, name, ds)))


def check_experiment(regular: Workspace, name: str, changes: Mapping[str, Any], ds: str) -> Experiment:
    """Returns an experiment of a day with the settings that its run would have; writes nothing."""
    from dssm_assets.steps.tower_checks import check_towers

    settings = read_settings(regular, name, ds) | dict(changes)
    check_towers(regular.fg_spec, apply_changes(regular.config, settings))
    return Experiment(name, normalise_changes(regular.config, settings))


def read_settings(regular: Workspace, name: str, ds: str) -> dict[str, Any]:
    """Returns the stored settings of an experiment on a day; none if no run has opened it."""
    artifacts = ArtifactStore(OverlayStore(regular.tables.partitions, name), regular.artifacts.cache)
    manifest = artifacts.partitions.find(SETTINGS, ds)
    return {} if manifest is None else dict(json.loads(artifacts.read_bytes(manifest, _FILE)))


def is_fitted(regular: Workspace, name: str, ds: str) -> bool:
    """Returns whether an experiment has towers and vectors of its own on a day, built from what it has stored."""
    partitions = OverlayStore(regular.tables.partitions, name)
    workspace = _overlay(regular, partitions, normalise_changes(regular.config, read_settings(regular, name, ds)))
    found = [partitions.find(asset, ds) for asset in ("dssm_model", "item_vectors", "user_vectors")]
    return all(one is not None and partitions.is_own(one) and is_current(workspace, one) for one in found)


def _prepare(workspace: Workspace, partitions: OverlayStore, known: Experiment, asset: str, ds: str) -> None:
    """Makes what an experiment's settings reach before an asset, and what an earlier run of it made with other settings."""
    from dssm_assets.defs.asset_table import all_rows

    steps = {row.name: row.step for row in all_rows()}
    reached = reached_assets(known.changes)
    for name in PREPARED.get(asset, ()):
        stored = partitions.find(name, ds)
        if name in reached or (stored is not None and partitions.is_own(stored)):
            workspace.log(f"experiment {known.name}: {name}")
            for _ in steps[name](workspace, [ds]):
                pass


def _overlay(regular: Workspace, partitions: OverlayStore, changes: Mapping[str, Any]) -> Workspace:
    """Returns a workspace with an experiment's settings, whose partitions hide the regular ones."""
    return regular.over(replace(regular.loaded, config=apply_changes(regular.config, changes)), partitions)
