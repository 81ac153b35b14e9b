"""The gate of a day: its counts beside the totals of the partitions before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from dssm_assets.steps.earlier import partitions_before
from dssm_assets.steps.workspace import Check, Workspace

if TYPE_CHECKING:
    from dssm_assets.core.evaluation.totals import Cells

NAME = "hit_rate_gate"


def hit_rate_gate(workspace: Workspace, ds: str, hit_counts: pa.Table | Cells, total: pa.Table) -> Check:
    """Returns whether the day's model may be shipped.

    With `gate.is_blocking` false a failure warns and holds nothing back.
    """
    from dssm_assets.core.evaluation.gate import hit_rate_gate as decide

    config = workspace.config
    before = partitions_before(workspace, "total_hit_rate", ds, config.gate.last_partitions)
    report = decide(
        hit_counts,
        total,
        {manifest.ds: workspace.tables.read(manifest) for manifest in before},
        config.gate,
        k=config.evaluation.k[-1],
        samples=config.evaluation.bootstrap_samples,
        seed=config.seed,
    )
    return Check(NAME, report.passed, report.sentence, report.facts, is_blocking=config.gate.is_blocking)
