"""Several short days at once: which days share one query or one call, so that the fixed cost of a table is not paid for every day.

The partitions are those that each day alone would give. Rows of a group are bounded, so a long day is a group of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import ibis

from dssm_assets.core.schema import TableSpec
from dssm_assets.steps.workspace import Workspace, digests
from dssm_assets.storage.engines.engine import DAY, BatchKernel, Bindable, ByDay, Target
from dssm_assets.storage.manifest import Manifest

GROUP_ROWS: Final = 1 << 16
"""Rows that the days of a group have together at most, unless it is a single day: memory grows with the days until a group is full.

65,536 rows hide the fixed cost of a day, some 20 ms, behind the cost of its rows; with more a step holds more and takes as long."""
GROUP_DAYS: Final = 64
"""Days of a group at most: its partitions are written after the last of them has been read."""

Inputs = dict[str, Manifest]
"""Name of an input -> its partition of a day."""


_Day = TypeVar("_Day")


def cut_days(
    days: Iterable[_Day],
    fit_together: Callable[[_Day, _Day], bool],
    added_rows: Callable[[Sequence[_Day], _Day], int],
) -> Iterator[list[_Day]]:
    """Yields groups of consecutive short days, in order; of days that cannot be read, those before.

    A group is yielded as soon as it is full and then no longer referred to, so that a long day can be freed before the next is read.

    Args:
        days: ascending.
        fit_together: whether a day can be in a group, by the group's first day and this one.
        added_rows: the rows that a day adds to a group.
    """
    group: list[_Day] = []
    rows = 0
    try:
        for day in days:
            added = added_rows(group, day)
            if group and (rows + added > GROUP_ROWS or not fit_together(group[0], day)):
                yield group
                group, rows = [], 0
                added = added_rows(group, day)
            group.append(day)
            rows += added
            del day
            if rows > GROUP_ROWS or len(group) == GROUP_DAYS:
                yield group
                group, rows = [], 0
    except Exception:
        if group:
            yield group
        raise
    if group:
        yield group


def group_days(
    workspace: Workspace,
    days: Sequence[str],
    assets: Mapping[str, str],
    fixed: Sequence[str] = (),
) -> Iterator[list[tuple[str, Inputs]]]:
    """Yields groups of days with their inputs, in order.

    Args:
        days: ascending.
        assets: name of an input -> the asset that it is a partition of.
        fixed: inputs that are the same partition content on all days of a group; their rows do not count.

    Raises:
        PartitionMissingError: a day has no such partition.
    """
    found = ((ds, {name: workspace.need(asset, ds) for name, asset in assets.items()}) for ds in days)
    return cut_days(
        found,
        lambda first, day: _fit_together(first[1], day[1], fixed),
        lambda _, day: sum(manifest.rows for name, manifest in day[1].items() if name not in fixed),
    )


def _fit_together(first: Inputs, other: Inputs, fixed: Sequence[str]) -> bool:
    has_same_columns = all(manifest.columns == other[name].columns for name, manifest in first.items())
    return has_same_columns and all(first[name].digest == other[name].digest for name in fixed)


def write_group(
    workspace: Workspace,
    spec: TableSpec,
    group: Sequence[tuple[str, Inputs]],
    expression: Callable[..., ibis.Table],
    kernel: BatchKernel | None = None,
    fixed: Sequence[str] = (),
    /,
    **arguments: Any,
) -> Iterator[Manifest]:
    """Writes the result of an expression for each day of a group; yields the partitions in order. See `Engine.write_days`."""
    if len(group) == 1 or has_own_day(group[0][1]):
        for ds, inputs in group:
            yield workspace.write_query(spec, ds, expression, inputs, kernel, None, **arguments)
        return
    targets = [Target(spec, ds, digests(inputs.values())) for ds, inputs in group]
    yield from workspace.engine.write_days(targets, expression, read_together(group, fixed), arguments, kernel)


def has_own_day(inputs: Inputs) -> bool:
    """Returns whether a table has a column of its own with the name of the column of days, so that days cannot be read together."""
    return any(column.name == DAY for manifest in inputs.values() for column in manifest.columns)


def read_together(group: Sequence[tuple[str, Inputs]], fixed: Sequence[str]) -> dict[str, Bindable]:
    """Returns the inputs of a group: the partition of a fixed one, all days of the others as one table."""
    first = group[0][1]
    return {name: first[name] if name in fixed else ByDay(tuple(inputs[name] for _, inputs in group)) for name in first}


def write_days(
    workspace: Workspace,
    spec: TableSpec,
    days: Sequence[str],
    expression: Callable[..., ibis.Table],
    assets: Mapping[str, str],
    /,
    **arguments: Any,
) -> Iterator[Manifest]:
    """Writes the result of an expression for each day, several days with one query; yields the partitions in order."""
    for group in group_days(workspace, days, assets):
        yield from write_group(workspace, spec, group, expression, None, (), **arguments)
