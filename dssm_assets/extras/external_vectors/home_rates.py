"""Reads the rates of a home's baselines and lists, to compare with external vectors: for the same day, users and items to find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays.ids import cast_ids, find_positions, format_ids
from dssm_assets.core.arrays.ragged import IntArray, combine_chunks
from dssm_assets.core.columns import TRUTH_COUNT, USER_ID
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.evaluation.evaluation_tables import HIT_COUNTS, hits_column, is_part
from dssm_assets.core.evaluation.rates import integers, sum_hits
from dssm_assets.core.names import Population, Scope
from dssm_assets.extras.external_vectors.external_evaluation import ExternalSettings
from dssm_assets.steps.evaluation import read_cells
from dssm_assets.steps.workspace import Workspace


def read_home_rates(workspace: Workspace, ds: str, counts: pa.Table, scope: Scope, settings: ExternalSettings) -> pa.Table:
    """Returns rows in the form of total_hit_rate, for the home's scorers and the users of `counts`, at the common cut-offs.

    Discovery stands for any seen pairs. If scope unseen fits the truth better, its rates are returned.

    Args:
        counts: user_id and truth_count from the evaluation of the external vectors.

    Raises:
        InputError: a user has another number of items to find in the home, or none; or see `common_cutoffs`.
    """
    cells, users = read_cells(workspace, workspace.need(HIT_COUNTS.name, ds)), combine_chunks(counts.column(USER_ID))
    scopes = (Scope.DISCOVERY, Scope.UNSEEN) if scope is Scope.DISCOVERY else (scope,)
    found = {
        one: {name: rows for name, rows in cells.get((one, Population.ALL), {}).items() if not is_part(name)} for one in scopes
    }
    others = {one: _find_others(users, counts, cell) for one, cell in found.items()}
    best = min(others, key=lambda one: len(others[one]))
    if len(others[best]):
        got = f"{len(others[best])} of {len(users)} users with more or fewer: {format_ids(users, others[best])}"
        expected = f"as many items to find as on {ds} in the home, scope {best}"
        remedy = f"take the truth from ground_truth of {ds}"
        if best is not Scope.ALL:
            remedy += ", and as --exclude the items that each user had in the window (discovery) or ever (unseen) before"
        if workspace.config.evaluation.max_users is not None:
            remedy += "; and only of users in hit_counts, a sample of evaluation.max_users"
        raise InputError(Fault("truth", expected, got, f"{remedy}; or leave out --day"))
    ks = common_cutoffs(workspace, ds, settings.ks)
    same = {name: rows.filter(pc.is_in(rows.column(USER_ID), users)) for name, rows in found[best].items()}
    return sum_hits({(best, Population.ALL): same}, ks, settings.bootstrap_samples, settings.seed)


def common_cutoffs(workspace: Workspace, ds: str, ks: Sequence[int]) -> list[int]:
    """Returns the cut-offs, out of `ks`, at which the home counted hits on a day. Raises an InputError if there are none."""
    known = {column.name for column in workspace.need(HIT_COUNTS.name, ds).columns}
    common = [k for k in ks if hits_column(k) in known]
    if not common:
        of_home = ", ".join(map(str, workspace.config.evaluation.k))
        raise InputError(Fault("-k", f"a cut-off of the home: {of_home}", ", ".join(map(str, ks)), "name one of these"))
    return common


def _find_others(users: pa.Array, counts: pa.Table, cell: Mapping[str, pa.Table]) -> IntArray:
    """Returns the rows of users with another number of items to find in a cell. A user that the cell lacks has 0 there."""
    stored = next(iter(cell.values()), counts.slice(0, 0))
    known = combine_chunks(stored.column(USER_ID))
    row = find_positions(cast_ids(users, known.type, "truth, column user_id"), known)
    return np.flatnonzero(np.append(integers(stored, TRUTH_COUNT), 0)[row] != integers(counts, TRUTH_COUNT))
