"""Experiments: a run with other settings than the configuration's, kept apart from what stands.

Belongs here: which settings can be tried, the configuration that follows, the table that compares. Does not belong here:
where an experiment's partitions lie (`storage/partitions.py`) and how a run is told its settings (`defs/experiments.py`).
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

STANDING: Final = "standing"
"""Stands in the table for the partition that the configuration made; no experiment has this name."""
EXPERIMENTS: Final = TableSpec(
    name="experiments",
    grain="one row per experiment, scope and k, the standing partition first",
    key=("experiment", "scope", "k"),
    columns=(
        ColumnSpec("experiment", pa.string(), "Its name; `standing` is what the configuration made."),
        ColumnSpec("changed", pa.string(), "Settings that differ from the configuration; empty for `standing`."),
        ColumnSpec("scope", pa.string(), "Which items count: all, discovery, repeat."),
        ColumnSpec("k", pa.int64(), "Length of the lists."),
        ColumnSpec("hit_rate", pa.float64(), "Of the model, over warm users and items."),
        ColumnSpec("ci_low", pa.float64(), "Lower end of its 95% bootstrap interval over users."),
        ColumnSpec("ci_high", pa.float64(), "Upper end of its 95% bootstrap interval over users."),
        ColumnSpec(
            "gain",
            pa.float64(),
            "hit_rate minus that of `standing` in the same cell (null: it lacks this k).",
            is_nullable=True,
        ),
        ColumnSpec("users", pa.int64(), "Users with truth in the cell."),
    ),
)


@dataclass(frozen=True)
class Experiment:
    """A name and the settings that differ, by key of the configuration."""

    name: str
    changes: Mapping[str, Any]

    @property
    def told(self) -> str:
        """Returns the changes in one line."""
        return told(self.changes)


def told(changes: Mapping[str, Any]) -> str:
    """Returns changes in one line: `model.temperature=0.05 training.epochs=3`."""
    return " ".join(f"{key}={value}" for key, value in sorted(changes.items()))


def differing(config: PipelineConfig, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those of the changes that say something else than the configuration."""
    return {key: value for key, value in changes.items() if value != value_of(config, key)}


def changed_config(config: PipelineConfig, changes: Mapping[str, Any]) -> PipelineConfig:
    """Returns the configuration with some values replaced, checked as if the file said so.

    Raises:
        ConfigError: naming every value that its key does not allow.
    """
    updates: dict[str, dict[str, Any]] = {}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        updates.setdefault(section, {})[name] = value
    sections, faults = {}, []
    for section, values in updates.items():
        standing = getattr(config, section)
        try:
            sections[section] = type(standing).model_validate(standing.model_dump() | values)
        except ValidationError as error:
            for item in error.errors():
                place = ".".join(map(str, [section, *item["loc"]]))
                faults.append(Fault(f"run settings, {place}", item["msg"], repr(item.get("input"))[:80], "correct the value"))
    if faults:
        raise ConfigError(faults)
    return config.model_copy(update=sections)


def refuse_unnamed(config: PipelineConfig, changes: Mapping[str, Any], file: str) -> None:
    """Checks that settings given to a run without an experiment's name are those of the configuration.

    Raises:
        ConfigError: naming each other one, and both ways to try it.
    """
    faults = [
        Fault(
            f"run settings, {key}",
            f"{value_of(config, key)}, as configured, or an experiment's name",
            f"{value} without a name",
            f"either name an `experiment` beside it: its results then lie in experiments/<name> and the standing partition "
            f"stays; or set {key} in {file} and materialize again: the standing partition is then made anew",
        )
        for key, value in differing(config, changes).items()
    ]
    if faults:
        raise ConfigError(faults)


def comparison(totals: Mapping[str, pa.Table], changes: Mapping[str, str]) -> pa.Table:
    """Returns the table `experiments` of a day.

    Args:
        totals: name -> its total_hit_rate; `standing` among them.
        changes: name -> its changes in one line.
    """
    standing: dict[tuple[str, int], float] = {}
    rows: list[dict[str, Any]] = []
    for name in [STANDING, *sorted(set(totals) - {STANDING})]:
        for row in totals[name].to_pylist():
            if row["scorer"] != "model" or row["population"] != "warm":
                continue
            cell = (row["scope"], row["k"])
            if name == STANDING:
                standing[cell] = row["hit_rate"]
            kept = {key: row[key] for key in ("scope", "k", "hit_rate", "ci_low", "ci_high", "users")}
            gain = row["hit_rate"] - standing[cell] if cell in standing else None
            rows.append({"experiment": name, "changed": changes.get(name, ""), "gain": gain, **kept})
    schema = pa.schema([pa.field(column.name, column.type) for column in EXPERIMENTS.columns])
    return pa.Table.from_pylist(rows, schema=schema)


def comparison_markdown(table: pa.Table, ds: str) -> str:
    """Returns the table at its largest common view: all scopes and cut-offs, one line each."""
    lines = [
        f"# Experiments on {ds}",
        "",
        "Warm users and items, 95% bootstrap intervals over users; gain over `standing`, which the configuration made.",
        "",
        "| experiment | changed | scope | k | hit_rate | gain | users |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in table.to_pylist():
        gain = "" if row["gain"] is None or row["experiment"] == STANDING else f"{row['gain']:+.4f}"
        interval = f"{row['hit_rate']:.4f} [{row['ci_low']:.4f}, {row['ci_high']:.4f}]"
        lines.append(
            f"| {row['experiment']} | {row['changed']} | {row['scope']} | {row['k']} | {interval} | {gain} | {row['users']} |"
        )
    return "\n".join(lines) + "\n"
