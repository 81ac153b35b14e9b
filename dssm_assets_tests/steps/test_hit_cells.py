"""Hit counts that are read a cell at a time are those of the whole table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from dssm_assets.core.evaluation.evaluation_tables import HIT_COUNTS
from dssm_assets.core.evaluation.rates import gains_over_best, total_hit_rate
from dssm_assets.core.evaluation.truth import Population, Scope
from dssm_assets.steps.hit_cells import StoredCells
from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests import worlds


def counts(first_user: int, users: int) -> pa.Table:
    """Users in a row of every cell, but nobody in discovery/cold, and cold only of even users."""
    rng = np.random.Generator(np.random.PCG64(first_user))
    rows = []
    for scorer in ("model", "popularity", "recent_popularity"):
        for scope in sorted(Scope):
            for population in sorted(Population):
                for user in range(first_user, first_user + users):
                    if population is Population.COLD and (scope is Scope.DISCOVERY or user % 2):
                        continue
                    hits = sorted(rng.integers(0, 4, 2).tolist())
                    keys = {"scorer": scorer, "scope": str(scope), "population": str(population), "user_id": user}
                    rows.append({**keys, "truth_count": 3, "hits_1": hits[0], "hits_2": hits[1]})
    return pa.Table.from_pylist(rows)


def test_totals_of_cells_are_those_of_the_table(tmp_path: Path) -> None:
    workspace = open_workspace(worlds.write_config(tmp_path))
    parts = [counts(0, 7), counts(7, 4)]
    staged = []
    for number, part in enumerate(parts):
        path = tmp_path / f"{number}.parquet"
        staged.append((path, workspace.tables.write_part(path, HIT_COUNTS, part.to_batches(), part.schema)))
    manifest = workspace.tables.publish_parts(HIT_COUNTS, "2024-01-09", staged, schema=parts[0].schema)
    whole, cells = pa.concat_tables(parts), StoredCells(workspace, manifest)
    assert cells.num_rows == whole.num_rows
    assert cells.cell(Scope.DISCOVERY, Population.COLD) == {}
    assert cells.cell(Scope.ALL, Population.COLD)["model"].column("user_id").to_pylist() == [0, 2, 4, 6, 8, 10]
    total = total_hit_rate(whole, [1, 2], 100, 5)
    assert total_hit_rate(cells, [1, 2], 100, 5).equals(total)
    options = {"k": 2, "samples": 100, "seed": 5}
    assert gains_over_best(cells, total, **options) == gains_over_best(whole, total, **options)
