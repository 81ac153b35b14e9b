"""The table `experiments`: hit rates of a day's experiments and of the regular run, with gains paired by user.

Shapes: U users of a cell, K cut-offs, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pyarrow as pa

from dssm_assets.core.columns import POPULATION, SCOPE, SCORER, TRUTH_COUNT, USER_ID
from dssm_assets.core.evaluation.evaluation_tables import MERGED, MODEL, hits_column
from dssm_assets.core.evaluation.rates import HitCells, interval, resampled_sums
from dssm_assets.core.names import Population, Scope
from dssm_assets.core.schema import ColumnSpec, TableSpec
from dssm_assets.extras.experiments.experiments import REGULAR, describe_changes, read_settings
from dssm_assets.steps.workspace import StepResult, Workspace, each_day
from dssm_assets.storage.overlay import OverlayStore, experiment_names
from dssm_assets.storage.tables import TableStore

COMPARED: Final = (MODEL, MERGED)
"""Experiments are compared by these scorers: the towers, and the served list."""
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
            "hit_rate minus the regular run's, over users scored in both (null: `regular` has no such k).",
            is_nullable=True,
        ),
        ColumnSpec("gain_low", pa.float64(), "Lower end of the gain's 95% interval, paired by user.", is_nullable=True),
        ColumnSpec("gain_high", pa.float64(), "Upper end of the gain's 95% interval, paired by user.", is_nullable=True),
        ColumnSpec("users", pa.int64(), "Users with ground truth in the cell."),
    ),
)
_COPIED: Final = ("scorer", "scope", "k", "hit_rate", "ci_low", "ci_high", "users")
_GAIN: Final = ("gain", "gain_low", "gain_high")

Cell = tuple[str, str, int]  # scorer, scope, k
Gain = tuple[float, float, float]  # the difference of two hit rates and both ends of its 95% interval


@each_day
def experiments(workspace: Workspace, ds: str) -> StepResult:
    """Compares the hit rates of a day's experiments with the regular run."""
    from dssm_assets.steps.evaluation import read_cells

    config, base = workspace.config, workspace.tables.partitions
    regular, cells = workspace.need("total_hit_rate", ds), read_cells(workspace, workspace.need("hit_counts", ds))
    total = workspace.tables.read(regular)
    rows, inputs = _list_rows(REGULAR, "", total, None), {regular.key: regular.digest}
    for name in experiment_names(base):
        store = OverlayStore(base, name)
        manifest = store.find("total_hit_rate", ds)
        if manifest is None or not store.is_own(manifest):
            continue
        own = replace(workspace, tables=TableStore(store))
        scored = own.tables.read(manifest)
        ks = sorted({*total.column("k").to_pylist()} & {*scored.column("k").to_pylist()})
        others = read_cells(own, own.need("hit_counts", ds))
        gains = paired_gains(others, cells, ks, config.evaluation.bootstrap_samples, config.seed)
        rows += _list_rows(name, describe_changes(read_settings(workspace, name, ds)), scored, gains)
        inputs[f"{name}/{manifest.key}"] = manifest.digest
    table = pa.Table.from_pylist(rows, EXPERIMENTS.schema)
    written = workspace.tables.write(EXPERIMENTS, ds, table, inputs=inputs)
    return StepResult(written, {"experiments": len(inputs) - 1}, report_markdown=_comparison_markdown(rows, ds))


def paired_gains(first: HitCells, second: HitCells, ks: Sequence[int], samples: int, seed: int) -> dict[Cell, Gain]:
    """Returns the first run's hit_rate minus the second run's, for warm pairs, by scope, scorer and k.

    Only users scored in both runs count, and each resample draws the same users for both. Cells that only one run has are left out.

    By hand: two users with 4 and 1 items to find. The first run finds 2 and 1, the second 1 and 1: (3 - 2) / 5 = .2. The
    resamples {u1, u1}, {u1, u2}, {u2, u2} give 2/8, 1/5 and 0, so the interval is [0, .25].
    """
    names = [TRUTH_COUNT, *(hits_column(k) for k in ks)]
    found: dict[Cell, Gain] = {}
    for scope in Scope if ks else ():
        one, other = (cells.get((scope, Population.WARM), {}) for cells in (first, second))
        for scorer in (scorer for scorer in COMPARED if scorer in one and scorer in other):
            left, right = (cells[scorer].select([USER_ID, *names]) for cells in (one, other))
            joined = left.join(right, USER_ID, join_type="inner", right_suffix="_second").sort_by(USER_ID)
            if joined.num_rows:
                columns = [joined.column(name) for name in (*names, *(f"{name}_second" for name in names))]
                values = np.stack([column.to_numpy().astype(np.int64) for column in columns], axis=1)  # [U, 2 * (1 + K)]
                bounds = interval(_subtract_rates(resampled_sums(values, samples, seed)))
                gains = zip(_subtract_rates(values.sum(axis=0)), *bounds, strict=True)
                cells_of_k = ((scorer, str(scope), k) for k in ks)
                found |= {cell: (float(a), float(b), float(c)) for cell, (a, b, c) in zip(cells_of_k, gains, strict=True)}
    return found


def _subtract_rates(sums: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Returns the first run's rates minus the second's [..., K], from the sums of truth and hits [..., 2 * (1 + K)]."""
    first, second = np.split(sums, 2, axis=-1)
    rates: np.ndarray[Any, Any] = first[..., 1:] / first[..., :1] - second[..., 1:] / second[..., :1]
    return rates


def _list_rows(name: str, changed: str, total: pa.Table, gains: Mapping[Cell, Gain] | None) -> list[dict[str, Any]]:
    rows = []
    for row in total.to_pylist():
        if row[SCORER] in COMPARED and row[POPULATION] == Population.WARM:
            cell = (row[SCORER], row[SCOPE], row["k"])
            gain = (0.0, 0.0, 0.0) if gains is None else gains.get(cell, (None, None, None))
            copied = {key: row[key] for key in _COPIED}
            rows.append({"experiment": name, "changed": changed, **copied, **dict(zip(_GAIN, gain, strict=True))})
    return rows


def _comparison_markdown(rows: Sequence[Mapping[str, Any]], ds: str) -> str:
    lines = [
        f"# Experiments on {ds}",
        "",
        "Warm users and items, 95% bootstrap intervals over users; gain over the row `regular` with the interval of the",
        "difference on the same users: if it contains 0, the difference is not distinguishable from chance on this day.",
        "",
        "| experiment | changed | scorer | scope | k | hit_rate | gain | users |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        rate = f"{row['hit_rate']:.4f} [{row['ci_low']:.4f}, {row['ci_high']:.4f}]"
        has_gain = row["gain"] is not None and row["experiment"] != REGULAR
        gain = f"{row['gain']:+.4f} [{row['gain_low']:+.4f}, {row['gain_high']:+.4f}]" if has_gain else ""
        cells = (row["experiment"], row["changed"], row["scorer"], row["scope"], row["k"], rate, gain, row["users"])
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"
