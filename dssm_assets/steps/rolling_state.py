"""Rolling states: from yesterday's state where it can be trusted, else from all days.

Yesterday's state can be trusted when it was made with the same settings and from the very days that stand now: each
state records both. So a corrected day inside the longest window, or a changed window, rebuilds the state instead of
bending it. A correction further back reaches only totals and first events: materialize the state of that day and of all
later ones again to bring it in.

Belongs here: that decision and its record. Does not belong here: the arithmetic (`core/features_raw`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import ibis
import pyarrow as pa

from dssm_assets.core.features_raw.signed_days import check_no_negative
from dssm_assets.core.schema import TableSpec
from dssm_assets.steps.workspace import StepResult, Workspace, day_before, days_between, digests
from dssm_assets.storage.engine import Bindable, ByDay, Target
from dssm_assets.storage.manifest import Manifest

SETTINGS = "settings"
DAYS = "days"


def roll(
    workspace: Workspace,
    spec: TableSpec,
    ds: str,
    *,
    windows: Sequence[int],
    settings: Mapping[str, Any],
    step: Callable[..., ibis.Table],
    scratch: Callable[..., ibis.Table],
) -> StepResult:
    """Returns the state of a day.

    Args:
        workspace: where.
        spec: the state's table.
        ds: the day.
        windows: days after which a day leaves; the largest bounds what is compared and, in `step`, what is read.
        settings: what else shapes the state; recorded, compared.
        step: called with tables `today`, `previous` (None on the first day) and `leaving_<w>` (where the day exists).
        scratch: called with a table `behavior` that holds all days with their `ds`.
    """
    first = workspace.config.calendar.start.isoformat()
    recent = days_between(max(first, day_before(ds, max(windows))), ds)
    stored = dict(zip(recent, workspace.need_all("behavior", recent), strict=True))
    previous = workspace.find(spec.name, day_before(ds)) if ds > first else None
    is_first = ds == first
    if is_first or _is_trusted(previous, stored, settings, ds):
        inputs: dict[str, Bindable] = {"today": stored[ds]}
        inputs |= {f"leaving_{days}": stored[day] for days in windows if (day := day_before(ds, days)) in stored}
        if previous is not None:
            inputs["previous"] = previous
        run, way = step, "rolled"
    else:
        before = [day for day in workspace.tables.partitions.days("behavior") if day <= ds]
        inputs = {"behavior": ByDay(tuple(workspace.need_all("behavior", before)))}
        run, way = scratch, f"rebuilt from {len(before)} days"
    if way != "rolled":
        workspace.log(f"{ds}: {way}")
    facts = {SETTINGS: dict(settings), DAYS: {day: manifest.digest for day, manifest in stored.items()}}
    target = Target(spec, ds, digests([*inputs.values(), *stored.values()]), facts)
    manifest = workspace.engine.write_query(target, run, inputs, {}, partial(_checked, state=spec.name))
    return StepResult(manifest, {"state": way})


def _checked(batch: pa.RecordBatch, state: str) -> pa.RecordBatch:
    check_no_negative(batch, state)
    return batch


def _is_trusted(previous: Manifest | None, stored: Mapping[str, Manifest], settings: Mapping[str, Any], ds: str) -> bool:
    if previous is None or previous.facts.get(SETTINGS) != dict(settings):
        return False
    used = previous.facts.get(DAYS)
    if not isinstance(used, dict):
        return False
    return all(used.get(day) == manifest.digest for day, manifest in stored.items() if day != ds)
