"""Experiments: runs with other settings than the configuration's, whose results are kept apart from the regular ones.

Belongs here: which settings an experiment changes, the configuration that follows, the table that compares experiments. Does
not belong here: where an experiment's partitions are stored (`storage/overlay.py`) and the forms that settings come from
(`defs/run_settings.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
from pydantic import ValidationError

from dssm_assets.core.config.pipeline import PipelineConfig, value_of
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.schema import ColumnSpec, TableSpec

REGULAR: Final = "standing"
"""The regular run's name in the table `experiments`; no experiment can have it."""
EXPERIMENTS: Final = TableSpec(
    name="experiments",
    grain="one row per experiment, scope and k, the regular run first",
    key=("experiment", "scope", "k"),
    columns=(
        ColumnSpec("experiment", pa.string(), "Its name; `standing` is the regular run."),
        ColumnSpec("changed", pa.string(), "Settings that differ from the configuration; empty for `standing`."),
        ColumnSpec("scope", pa.string(), "Which items count: all, discovery, repeat, new, unseen."),
        ColumnSpec("k", pa.int64(), "Length of the lists."),
        ColumnSpec("hit_rate", pa.float64(), "Of the model, over warm users and items."),
        ColumnSpec("ci_low", pa.float64(), "Lower end of its 95% bootstrap interval over users."),
        ColumnSpec("ci_high", pa.float64(), "Upper end of its 95% bootstrap interval over users."),
        ColumnSpec(
            "gain",
            pa.float64(),
            "hit_rate minus that of `standing` in the same cell (null: `standing` has no such k).",
            is_nullable=True,
        ),
        ColumnSpec("users", pa.int64(), "Users with ground truth in the cell."),
    ),
)


@dataclass(frozen=True)
class Experiment:
    """A name and the settings that differ, by key of the configuration."""

    name: str
    changes: Mapping[str, Any]

    @property
    def summary(self) -> str:
        """Returns the changes in one line."""
        return describe_changes(self.changes)


def describe_changes(changes: Mapping[str, Any]) -> str:
    """Returns changes in one line: `model.temperature=0.05 training.epochs=3`."""
    return " ".join(f"{key}={value}" for key, value in sorted(changes.items()))


def drop_configured(config: PipelineConfig, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that differ from the configuration."""
    return {key: value for key, value in settings.items() if value != value_of(config, key)}


def apply_changes(config: PipelineConfig, changes: Mapping[str, Any]) -> PipelineConfig:
    """Returns the configuration with some values replaced, validated as if they were in the file.

    Raises:
        ConfigError: naming every value that its key does not allow.
    """
    updates: dict[str, dict[str, Any]] = {}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        updates.setdefault(section, {})[name] = value
    sections, faults = {}, []
    for section, values in updates.items():
        configured = getattr(config, section)
        try:
            sections[section] = type(configured).model_validate(configured.model_dump() | values)
        except ValidationError as error:
            for item in error.errors():
                key = ".".join(map(str, [section, *item["loc"]]))
                faults.append(Fault(f"run settings, {key}", item["msg"], repr(item.get("input"))[:80], "correct the value"))
    if faults:
        raise ConfigError(faults)
    return config.model_copy(update=sections)


def refuse_unnamed(config: PipelineConfig, settings: Mapping[str, Any], file: str) -> None:
    """Checks that the settings of a run without an experiment's name are the configured ones.

    Raises:
        ConfigError: naming each one that differs, and both ways to try it.
    """
    faults = [
        Fault(
            f"run settings, {key}",
            f"{value_of(config, key)}, as configured, or an experiment's name",
            f"{value} without a name",
            f"either enter a name as `experiment`: the results go to experiments/<name> and the regular partition does not "
            f"change; or set {key} in {file} and materialize again: that replaces the regular partition",
        )
        for key, value in drop_configured(config, settings).items()
    ]
    if faults:
        raise ConfigError(faults)


def compare_totals(totals: Mapping[str, pa.Table], changes: Mapping[str, str]) -> pa.Table:
    """Returns the table `experiments` of a day.

    Args:
        totals: name -> its total_hit_rate, that of the regular run under `REGULAR`.
        changes: name -> its changes in one line.
    """
    regular: dict[tuple[str, int], float] = {}
    rows: list[dict[str, Any]] = []
    for name in [REGULAR, *sorted(set(totals) - {REGULAR})]:
        for row in totals[name].to_pylist():
            if row["scorer"] != "model" or row["population"] != "warm":
                continue
            cell = (row["scope"], row["k"])
            if name == REGULAR:
                regular[cell] = row["hit_rate"]
            copied = {key: row[key] for key in ("scope", "k", "hit_rate", "ci_low", "ci_high", "users")}
            gain = row["hit_rate"] - regular[cell] if cell in regular else None
            rows.append({"experiment": name, "changed": changes.get(name, ""), "gain": gain, **copied})
    schema = pa.schema([pa.field(column.name, column.type) for column in EXPERIMENTS.columns])
    return pa.Table.from_pylist(rows, schema=schema)


def comparison_markdown(table: pa.Table, ds: str) -> str:
    """Returns the table `experiments` as markdown, one line per row."""
    lines = [
        f"# Experiments on {ds}",
        "",
        "Warm users and items, 95% bootstrap intervals over users; gain over `standing`, the regular run.",
        "",
        "| experiment | changed | scope | k | hit_rate | gain | users |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in table.to_pylist():
        gain = "" if row["gain"] is None or row["experiment"] == REGULAR else f"{row['gain']:+.4f}"
        interval = f"{row['hit_rate']:.4f} [{row['ci_low']:.4f}, {row['ci_high']:.4f}]"
        lines.append(
            f"| {row['experiment']} | {row['changed']} | {row['scope']} | {row['k']} | {interval} | {gain} | {row['users']} |"
        )
    return "\n".join(lines) + "\n"
