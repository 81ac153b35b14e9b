"""Experiments: runs with other settings than the configuration's, whose results are kept apart from the regular ones.

Belongs here: an experiment as a name with changes, the table that compares experiments. Does not belong here: which keys can be
changed (`settings.py`), where an experiment's partitions are stored (`storage/overlay.py`), the forms that settings
come from (`forms.py`).

Shapes: U users of a cell, K cut-offs, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from dssm_assets.core.columns import POPULATION, SCOPE, SCORER, TRUTH_COUNT, USER_ID
from dssm_assets.core.config.pipeline import PipelineConfig, json_value_of, value_of
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.evaluation.evaluation_tables import MERGED, MODEL, hits_column
from dssm_assets.core.evaluation.rates import HitCells, interval, resampled_sums
from dssm_assets.core.evaluation.scopes import Population, Scope
from dssm_assets.core.schema import ColumnSpec, TableSpec

COMPARED: Final = (MODEL, MERGED)
"""The scorers that experiments are compared by: the towers, and the list that is served."""
REGULAR: Final = "regular"
"""The regular run's name in the table `experiments`; no experiment can have it."""
EXPERIMENTS: Final = TableSpec(
    name="experiments",
    grain="one row per experiment, scorer, scope and k, the regular run first",
    key=("experiment", "scorer", "scope", "k"),
    columns=(
        ColumnSpec("experiment", pa.string(), "Its name; `regular` is the regular run."),
        ColumnSpec("changed", pa.string(), "Settings that differ from the configuration; empty for `regular`."),
        ColumnSpec("scorer", pa.string(), "model: the lists of the towers; merged: the lists that are served."),
        ColumnSpec("scope", pa.string(), "Which items count: all, discovery, repeat, new, unseen."),
        ColumnSpec("k", pa.int64(), "Length of the lists."),
        ColumnSpec("hit_rate", pa.float64(), "Over warm users and items."),
        ColumnSpec("ci_low", pa.float64(), "Lower end of its 95% bootstrap interval over users."),
        ColumnSpec("ci_high", pa.float64(), "Upper end of its 95% bootstrap interval over users."),
        ColumnSpec(
            "gain",
            pa.float64(),
            "hit_rate minus that of `regular`, over the users that both scored (null: `regular` has no such k).",
            is_nullable=True,
        ),
        ColumnSpec("gain_low", pa.float64(), "Lower end of the gain's 95% interval, paired by user.", is_nullable=True),
        ColumnSpec("gain_high", pa.float64(), "Upper end of the gain's 95% interval, paired by user.", is_nullable=True),
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
    return {key: value for key, value in settings.items() if value not in (value_of(config, key), json_value_of(config, key))}


def refuse_unnamed(config: PipelineConfig, settings: Mapping[str, Any], file: str) -> None:
    """Checks that the settings of a run without an experiment's name are the configured ones.

    Raises:
        ConfigError: naming each one that differs, and both ways to try it.
    """
    ConfigError.raise_if(
        Fault(
            f"run settings, {key}",
            f"{value_of(config, key)}, as configured, or an experiment's name",
            f"{value} without a name",
            f"either enter a name as `experiment`: the results go to experiments/<name> and the regular partition does not "
            f"change; or set {key} in {file} and materialize again: that replaces the regular partition",
        )
        for key, value in drop_configured(config, settings).items()
    )


@dataclass(frozen=True)
class PairedGain:
    """The difference of two hit rates over the same users, with its 95% interval."""

    gain: float
    low: float
    high: float


Cell = tuple[str, str, int]
"""Scorer, scope, k."""


def paired_gains(first: HitCells, second: HitCells, ks: Sequence[int], samples: int, seed: int) -> dict[Cell, PairedGain]:
    """Returns hit_rate of the first minus that of the second, in every scope for warm pairs, for each compared scorer and k.

    Only users that both scored count; each resample draws the same users for both. A cell that one of the two lacks is left out.

    By hand: two users with 4 and 1 items to find. The first run finds 2 and 1, the second 1 and 1: (3 - 2) / 5 = .2. The
    resamples {u1, u1}, {u1, u2}, {u2, u2} give 2/8, 1/5 and 0, so the interval is [0, .25].
    """
    found: dict[Cell, PairedGain] = {}
    for scope in Scope if ks else ():
        one, other = (cells.cell(scope, Population.WARM) for cells in (first, second))
        for scorer in COMPARED:
            if scorer not in one or scorer not in other:
                continue
            values = _paired_counts(one[scorer], other[scorer], ks)  # [U, 2 * (1 + K)]
            if not len(values):
                continue
            sums = resampled_sums(values, samples, seed)
            wide, total = len(ks) + 1, values.sum(axis=0)
            for number, k in enumerate(ks, 1):
                difference = sums[:, number] / sums[:, 0] - sums[:, wide + number] / sums[:, wide]  # [R]
                low, high = interval(difference)
                gain = total[number] / total[0] - total[wide + number] / total[wide]
                found[scorer, str(scope), k] = PairedGain(float(gain), float(low), float(high))
    return found


def _paired_counts(first: pa.Table, second: pa.Table, ks: Sequence[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Returns int64 [U, 2 * (1 + K)]: items to find and hits at each k in the first run, then in the second; shared users, sorted."""
    names = [TRUTH_COUNT, *(hits_column(k) for k in ks)]
    other = second.select([USER_ID, *names]).rename_columns([USER_ID, *(f"{name}_second" for name in names)])
    joined = first.select([USER_ID, *names]).join(other, USER_ID, join_type="inner").sort_by(USER_ID)
    columns = [*names, *(f"{name}_second" for name in names)]
    return np.stack([joined.column(name).to_numpy().astype(np.int64) for name in columns], axis=1)


def compare_totals(
    totals: Mapping[str, pa.Table], changes: Mapping[str, str], gains: Mapping[str, Mapping[Cell, PairedGain]]
) -> pa.Table:
    """Returns the table `experiments` of a day.

    Args:
        totals: name -> its total_hit_rate, that of the regular run under `REGULAR`.
        changes: name -> its changes in one line.
        gains: name -> its gains over the regular run.
    """
    rows: list[dict[str, Any]] = []
    for name in [REGULAR, *sorted(set(totals) - {REGULAR})]:
        for row in totals[name].to_pylist():
            if row[SCORER] not in COMPARED or row[POPULATION] != Population.WARM:
                continue
            cell = (row[SCORER], row[SCOPE], row["k"])
            gain = PairedGain(0.0, 0.0, 0.0) if name == REGULAR else gains.get(name, {}).get(cell)
            bounds = (None, None, None) if gain is None else (gain.gain, gain.low, gain.high)
            copied = {key: row[key] for key in ("scorer", "scope", "k", "hit_rate", "ci_low", "ci_high", "users")}
            compared = dict(zip(("gain", "gain_low", "gain_high"), bounds, strict=True))
            rows.append({"experiment": name, "changed": changes.get(name, ""), **compared, **copied})
    schema = pa.schema([pa.field(column.name, column.type) for column in EXPERIMENTS.columns])
    return pa.Table.from_pylist(rows, schema=schema)


def describe_gain(row: Mapping[str, Any]) -> str:
    """Returns the gain of a row with its interval, such as `+0.0120 [+0.0040, +0.0200]`; empty for the regular run."""
    if row["gain"] is None or row["experiment"] == REGULAR:
        return ""
    return f"{row['gain']:+.4f} [{row['gain_low']:+.4f}, {row['gain_high']:+.4f}]"


def comparison_markdown(table: pa.Table, ds: str) -> str:
    """Returns the table `experiments` as markdown, one line per row."""
    lines = [
        f"# Experiments on {ds}",
        "",
        "Warm users and items, 95% bootstrap intervals over users; gain over the row `regular` with the interval of the",
        "difference on the same users: if it holds 0, the difference is not distinguishable from chance on this day.",
        "",
        "| experiment | changed | scorer | scope | k | hit_rate | gain | users |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in table.to_pylist():
        rate = f"{row['hit_rate']:.4f} [{row['ci_low']:.4f}, {row['ci_high']:.4f}]"
        name, gain = f"| {row['experiment']} | {row['changed']} |", describe_gain(row)
        lines.append(f"{name} {row['scorer']} | {row['scope']} | {row['k']} | {rate} | {gain} | {row['users']} |")
    return "\n".join(lines) + "\n"
