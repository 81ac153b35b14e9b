"""The settings that an experiment may change: any key of five sections, how they are entered, and what must be made again.

Belongs here: the keys, values as JSON, the windowed assets that follow from a key. Does not belong here: the forms of the
Launchpad (`forms.py`), making the assets (`experiments.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, Final

import yaml

from dssm_assets.core.asset_settings import READS
from dssm_assets.core.config.pipeline import PipelineConfig, parse_config
from dssm_assets.core.errors import ConfigError, Fault

SECTIONS: Final = ("model", "training", "statistics", "negative_items", "channels")
"""Sections of which every key can be changed."""
OTHER_KEYS: Final = ("evaluation.k",)
WHERE: Final = "run settings"

PREPARED: Final = {
    "dssm_model": (
        "feature_binning",
        "feature_config",
        "step_config",
        "negative_items",
        "train_samples",
        "training_config",
    ),
    "hit_counts": ("channel_weights",),
}
"""Asset of an experiment's run -> windowed assets that are made before it where the settings reach them, in order."""


def settable_keys() -> list[str]:
    """Returns every key `section.name` that an experiment may change, sorted."""
    fields = PipelineConfig.model_fields
    keys = [f"{section}.{name}" for section in SECTIONS for name in fields[section].annotation.model_fields]  # type: ignore[union-attr]
    return sorted([*keys, *OTHER_KEYS])


def parse_assignments(texts: Sequence[str]) -> dict[str, Any]:
    """Returns key -> value of texts `key=value`, values as YAML: `model.prior=true`, `statistics.embedding_dim={item: 64}`.

    Raises:
        ConfigError: naming every text that is not such an assignment, and every key that is set twice.
    """
    found: dict[str, Any] = {}
    faults = []
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            faults.append(Fault(f"--set {text}", "key=value", repr(text), "write, for example, --set model.prior=true"))
            continue
        if key in found:
            faults.append(Fault(f"--set {key}", "one value", "two", "set it once"))
            continue
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            got = f"{value!r}: {' '.join(str(error).split())}"
            faults.append(Fault(f"--set {key}", "a value in YAML", got, "quote it, for example --set 'key={item: 64}'"))
    ConfigError.raise_if(faults)
    return found


def expand_settings(config: PipelineConfig, entered: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `section.name` -> whole value of entered keys, which may reach into a mapping.

    Example: `statistics.embedding_dim.item` = 64 becomes `statistics.embedding_dim` = the configured widths with item: 64.

    Raises:
        ConfigError: naming every key that does not exist or cannot be changed, with the nearest one that can.
    """
    known, configured = settable_keys(), config.model_dump(mode="json")
    found: dict[str, Any] = {}
    faults = []
    for key, value in entered.items():
        section, _, rest = key.partition(".")
        name, *inside = rest.split(".")
        top = f"{section}.{name}"
        if top not in known:
            faults.append(_unknown_key(key, known))
        elif not inside:
            found[top] = value
        else:
            before = found.get(top, configured[section][name])
            try:
                found[top] = _replace_inside(before, inside, value)
            except TypeError:
                remedy = f"give the whole value of {top}"
                faults.append(Fault(f"{WHERE}, {key}", f"{top} to hold keys", repr(before)[:80], remedy))
    ConfigError.raise_if(faults)
    return found


def normalise_changes(config: PipelineConfig, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the changes that differ from the configuration, with the values that the configuration makes of them.

    Example: `training.svd_init` = {dim: 64} becomes a mapping with all keys of that section, those not given by default.

    Raises:
        ConfigError: as `apply_changes`.
    """
    before, after = config.model_dump(mode="json"), apply_changes(config, changes).model_dump(mode="json")
    found = {}
    for key in sorted(changes):
        section, _, name = key.partition(".")
        if after[section][name] != before[section][name]:
            found[key] = after[section][name]
    return found


def apply_changes(config: PipelineConfig, changes: Mapping[str, Any]) -> PipelineConfig:
    """Returns the configuration with some values replaced, validated as if they were in the file.

    Raises:
        ConfigError: naming every value that its key does not allow, and what one section then demands of another.
    """
    raw = config.model_dump(mode="json")
    for key, value in changes.items():
        section, _, name = key.partition(".")
        raw[section] = {**raw[section], name: value}
    return parse_config(raw, where=WHERE)


def reached_assets(changes: Iterable[str]) -> frozenset[str]:
    """Returns the windowed assets before the fit, or before the hit counts, whose content follows from some keys.

    Example: `negative_items.alpha` reaches negative_items, train_samples, training_config, and channel_weights by the towers.
    """
    keys = [key for key in changes if key not in OTHER_KEYS]
    prepared = [asset for assets in PREPARED.values() for asset in assets]
    reached = {asset for asset in prepared for key in keys if any(f"{key}.".startswith(f"{read}.") for read in READS[asset])}
    return frozenset(reached | ({"channel_weights"} if needs_fit(keys) else set()))


def needs_fit(changes: Iterable[str]) -> bool:
    """Returns whether other towers follow from some keys; channels and lengths of lists need none."""
    return any(not key.startswith(("channels.", "evaluation.")) for key in changes)


def _replace_inside(before: Any, path: Sequence[str], value: Any) -> Any:
    if not path:
        return value
    if before is not None and not isinstance(before, dict):
        raise TypeError
    kept = before or {}
    return {**kept, path[0]: _replace_inside(kept.get(path[0]), path[1:], value)}


def _unknown_key(key: str, known: Sequence[str]) -> Fault:
    expected = f"a key of {', '.join(SECTIONS)}, or {', '.join(OTHER_KEYS)}"
    nearest = max(known, key=lambda one: max(_similarity(key, one), _similarity(key.rpartition(".")[2], one.partition(".")[2])))
    remedy = f"write {nearest} if you mean it; docs/configuration.md has every key"
    return Fault(f"{WHERE}, {key}", expected, f"an unknown key; the nearest is {nearest}", remedy)


def _similarity(first: str, second: str) -> float:
    return SequenceMatcher(None, first, second).ratio()
