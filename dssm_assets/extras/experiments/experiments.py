"""Experiments: their settings (any key of five sections), and workspaces over their partitions."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Final

import yaml

from dssm_assets.core.asset_settings import READS
from dssm_assets.core.config.pipeline import PipelineConfig, parse_config
from dssm_assets.core.errors import ConfigError, Fault, remedy_of_missing
from dssm_assets.extras.experiments.forms import json_value_of, value_of
from dssm_assets.steps.workspace import Workspace, is_current
from dssm_assets.storage.artifacts import ArtifactStore
from dssm_assets.storage.config_file import parse_yaml
from dssm_assets.storage.overlay import OverlayStore

SECTIONS: Final = ("model", "training", "statistics", "negative_items", "channels")
"""An experiment may change every key of these sections."""
OTHER_KEYS: Final = ("evaluation.k",)
WHERE: Final = "run settings"
REGULAR: Final = "regular"
"""Name of the regular run in the table `experiments`. No experiment may have it."""
ADOPT: Final = "adopt"
"""No experiment may have this name, because `experiment adopt NAME` is a command."""
SETTINGS: Final = "settings"
_FILE: Final = "settings.json"
PREPARED: Final = {
    "dssm_model": ("feature_binning", "feature_config", "step_config", "negative_items", "train_samples", "training_config"),
    "hit_counts": ("channel_weights",),
}
"""Asset of an experiment's run -> windowed assets to make before it, in order, if the settings change them."""


@dataclass(frozen=True)
class Experiment:
    """An experiment's name, and its changed settings: key of the configuration -> value."""

    name: str
    changes: Mapping[str, Any]


def find_name_faults(name: str, where: str = "experiment") -> Iterator[Fault]:
    if name in (REGULAR, ADOPT) or not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name):
        expected = f"small letters, digits and _, beginning with a letter, and neither {REGULAR} nor {ADOPT}"
        yield Fault(where, expected, repr(name), "choose another name")


def describe_changes(changes: Mapping[str, Any]) -> str:
    """Writes changes in one line: `model.temperature=0.05 training.epochs=3`."""
    return " ".join(f"{key}={value}" for key, value in sorted(changes.items())) or "nothing"


def drop_configured(config: PipelineConfig, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if value not in (value_of(config, key), json_value_of(config, key))}


def settable_keys() -> list[str]:
    """Returns every key `section.name` that an experiment may change, sorted."""
    fields = PipelineConfig.model_fields
    keys = [f"{section}.{name}" for section in SECTIONS for name in fields[section].annotation.model_fields]  # type: ignore[union-attr]
    return sorted([*keys, *OTHER_KEYS])


def parse_assignments(texts: Sequence[str]) -> dict[str, Any]:
    """Parses texts `key=value` to key -> value, with values in YAML: `model.prior=true`, `statistics.embedding_dim={item: 64}`."""
    found: dict[str, Any] = {}
    faults = []
    for text in texts:
        key, equals, value = text.partition("=")
        if key.strip() in found:
            faults.append(Fault(f"--set {key}", "one value", "two", "set it once"))
        try:
            found[key.strip()] = parse_yaml(value, f"--set {key}")
        except ConfigError as error:
            got = f"{value!r}: {' '.join(error.faults[0].got.split())}"
            faults.append(Fault(f"--set {key}", "a value in YAML", got, "quote it, for example --set 'key={item: 64}'"))
        if not equals:
            faults.append(Fault(f"--set {text}", "key=value", repr(text), "write, for example, --set model.prior=true"))
    ConfigError.raise_if(faults)
    return found


def expand_settings(config: PipelineConfig, entered: Mapping[str, Any]) -> dict[str, Any]:
    """Expands entered keys, which may reach into a mapping, to `section.name` -> whole value.

    Example: `statistics.embedding_dim.item` = 64 becomes `statistics.embedding_dim` = the configured widths with item: 64.

    Raises:
        ConfigError: a key does not exist or cannot be changed. Lists all such keys, with the nearest valid keys.
    """
    known, configured = settable_keys(), config.model_dump(mode="json")
    found: dict[str, Any] = {}
    faults = []
    for key, value in entered.items():
        section, _, rest = key.partition(".")
        name, *inside = rest.split(".")
        top = f"{section}.{name}"
        if top not in known:
            expected, (nearest,) = f"a key of {', '.join((*SECTIONS, *OTHER_KEYS))}", get_close_matches(key, known, 1, 0)
            remedy = f"write {nearest} if you mean it; docs/configuration.md has every key"
            faults.append(Fault(f"{WHERE}, {key}", expected, f"an unknown key; the nearest is {nearest}", remedy))
            continue
        before = found.get(top, configured[section][name])
        try:
            found[top] = _replace_inside(before, inside, value)
        except TypeError:
            remedy = f"give the whole value of {top}"
            faults.append(Fault(f"{WHERE}, {key}", f"{top} to hold keys", repr(before)[:80], remedy))
    ConfigError.raise_if(faults)
    return found


def normalise_changes(config: PipelineConfig, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the changes that differ from the configuration, with parsed values.

    Example: `training.svd_init` = {dim: 64} becomes a mapping with all keys of that section, filled with defaults.
    """
    changed = apply_changes(config, changes)
    after = {key: json_value_of(changed, key) for key in sorted(changes)}
    return {key: value for key, value in after.items() if value != json_value_of(config, key)}


def apply_changes(config: PipelineConfig, changes: Mapping[str, Any]) -> PipelineConfig:
    """Returns the configuration with some values replaced. They are validated like values in the file.

    Raises:
        ConfigError: values are forbidden or sections conflict. All faults are listed.
    """
    raw = config.model_dump(mode="json")
    for key, value in changes.items():
        section, _, name = key.partition(".")
        raw[section] = {**raw[section], name: value}
    return parse_config(raw, where=WHERE)


def reached_assets(changes: Iterable[str]) -> frozenset[str]:
    """Returns the assets of `PREPARED` (made before the fit, or before the hit counts) that depend on the changed keys."""
    keys = [key for key in changes if key not in OTHER_KEYS]
    prepared = [asset for assets in PREPARED.values() for asset in assets]
    reached = {asset for asset in prepared for key in keys if any(f"{key}.".startswith(f"{read}.") for read in READS[asset])}
    return frozenset(reached | ({"channel_weights"} if needs_fit(keys) else set()))


def needs_fit(changes: Iterable[str]) -> bool:
    """Returns whether changes of these keys need new towers. Channels and lengths of lists need none."""
    return any(not key.startswith(("channels.", "evaluation.")) for key in changes)


def edit_yaml(text: str, changes: Mapping[str, Any], note: str) -> str:
    """Replaces or adds values in a YAML text. Comments and the order of keys stay.

    Args:
        changes: key `section.name` -> value.
        note: comment above every changed key, followed by the former value; empty: no comment.

    Raises:
        ConfigError: the text cannot be edited, for example because of aliases.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap

    writer = YAML()
    writer.preserve_quotes = True
    writer.width = 1 << 20
    writer.indent(mapping=2, sequence=4, offset=2)
    document = writer.load(text) or CommentedMap()
    wanted: dict[str, Any] = yaml.safe_load(text) or {}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        if not isinstance(document.get(section), CommentedMap):
            document[section] = CommentedMap()
        keys = document[section]
        before = f"; was {keys[name]}" if name in keys and not isinstance(keys[name], (dict, list)) else ""
        keys[name] = value
        if note and not keys.fa.flow_style():
            keys.yaml_set_comment_before_after_key(name, before=f"{note}{before}", indent=2)
        wanted[section] = {**(wanted.get(section) or {}), name: value}
    target = io.StringIO()
    writer.dump(document, target)
    if yaml.safe_load(target.getvalue()) != wanted:
        remedy = "write the settings into the file by hand"
        raise ConfigError(Fault("configuration file", "plain YAML without aliases", "text that other keys share", remedy))
    return target.getvalue()


def open_experiment(regular: Workspace, experiment: Experiment, asset: str, ds: str) -> tuple[Workspace, Experiment]:
    """Opens an experiment on a day. Returns its workspace, and the experiment with all of its settings.

    Settings of an earlier run with the same name and day stay in force unless this run changes them. Assets of `PREPARED[asset]`
    are first made as partitions of the experiment, if the settings change them or an earlier run made them.

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
    """Returns the workspace of an experiment that an earlier run has opened on a day, with its settings. Writes nothing.

    Raises:
        ConfigError: no run has opened the experiment.
    """
    partitions = OverlayStore(regular.tables.partitions, name)
    if partitions.find(SETTINGS, ds) is None:
        remedy = "first start the experiment's run of dssm_model: it stores the settings, then says what to start"
        raise ConfigError(Fault(f"experiment {name}", f"settings of {ds}", "none", remedy))
    return _overlay(regular, partitions, normalise_changes(regular.config, read_settings(regular, name, ds)))


def check_experiment(regular: Workspace, name: str, changes: Mapping[str, Any], ds: str) -> Experiment:
    """Returns the experiment with the settings that a run of this day would have. Writes nothing."""
    from dssm_assets.steps.feature_config import check_towers

    settings = read_settings(regular, name, ds) | dict(changes)
    check_towers(regular.fg_spec, apply_changes(regular.config, settings))
    return Experiment(name, normalise_changes(regular.config, settings))


def read_settings(regular: Workspace, name: str, ds: str) -> dict[str, Any]:
    """Returns the stored settings of an experiment on a day, empty if no run has opened it."""
    artifacts = ArtifactStore(OverlayStore(regular.tables.partitions, name), regular.artifacts.cache)
    manifest = artifacts.partitions.find(SETTINGS, ds)
    return {} if manifest is None else dict(json.loads(artifacts.read_bytes(manifest, _FILE)))


def is_fitted(regular: Workspace, name: str, ds: str) -> bool:
    """Returns whether an experiment has its own towers and vectors on a day, built from its stored inputs."""
    partitions, workspace = OverlayStore(regular.tables.partitions, name), reopen_experiment(regular, name, ds)
    found = [partitions.find(asset, ds) for asset in ("dssm_model", "item_vectors", "user_vectors")]
    return all(one is not None and partitions.is_own(one) and is_current(workspace, one) for one in found)


def _prepare(workspace: Workspace, partitions: OverlayStore, known: Experiment, asset: str, ds: str) -> None:
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
    return regular.over(replace(regular.loaded, config=apply_changes(regular.config, changes)), partitions)


def _replace_inside(before: Any, path: Sequence[str], value: Any) -> Any:
    if not path:
        return value
    if before is not None and not isinstance(before, dict):
        raise TypeError
    kept = before or {}
    return {**kept, path[0]: _replace_inside(kept.get(path[0]), path[1:], value)}
