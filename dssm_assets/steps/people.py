"""Reads the events of single people, and the titles of items, for the report and the page of `dssm-assets explore`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ragged import combine_chunks
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.evaluation.evaluation_tables import MERGED, MODEL, hits_column
from dssm_assets.core.evaluation.people import SHOWN_ITEMS, Found, ShownPerson, choose_people, describe_ranks, people_section
from dssm_assets.core.evaluation.rates import HitCells, best_baseline, rows_of_cell
from dssm_assets.core.names import Population, Scope
from dssm_assets.steps.stored_interactions import find_event_days, read_rows_of_users
from dssm_assets.steps.workspace import Workspace, day_before
from dssm_assets.storage.manifest import Manifest

HAD_DAYS: Final = 30
"""A report looks for a person's last items in so many stored days."""


class Titles:
    """Names of items: `explore.item_columns`, or the columns of an item table that look like names."""

    def __init__(self, workspace: Workspace, ds: str) -> None:
        """Finds the item table of a day. Without one, ids serve as titles. Unknown columns raise a ConfigError."""
        self._workspace, self._table = workspace, workspace.find("item_table", ds)
        self.columns, self._known = list[str](), dict[Any, str]()
        if self._table is not None:
            schema, chosen = workspace.tables.read_schema(self._table), workspace.config.explore.item_columns
            if unknown := [name for name in chosen if name not in schema.names]:
                known = ", ".join(name for name in schema.names if name != col.ITEM_ID)
                raise ConfigError(Fault("explore.item_columns", f"columns of {known}", ", ".join(unknown), "correct the names"))
            self.columns = chosen or _guess_names(schema)

    def of(self, item_ids: Sequence[Any]) -> list[str]:
        """Returns the title of each item. An item without a title has its id."""
        lacking = [item for item in dict.fromkeys(item_ids) if item not in self._known]
        if lacking and self.columns and self._table is not None:
            stored = self._workspace.tables.open(self._table)
            wanted = pc.field(col.ITEM_ID).isin(pa.array(lacking, stored.schema.field(col.ITEM_ID).type))
            for row in stored.to_table(columns=[col.ITEM_ID, *self.columns], filter=wanted).to_pylist():
                words = [str(row[name]) for name in self.columns if row[name] not in (None, "")]
                self._known[row[col.ITEM_ID]] = " / ".join(words)
        return [self._known.get(item) or str(item) for item in item_ids]


def _guess_names(schema: pa.Schema) -> list[str]:
    """Returns text columns that look like names: a title or name, else types and categories, else the last two text columns."""
    texts = [one.name for one in schema if one.name != col.ITEM_ID and pa.types.is_string(one.type)]
    named = [name for name in texts if any(word in name.lower() for word in ("title", "name", "headline"))]
    return named[:1] or [name for name in texts if "type" in name.lower() or "categor" in name.lower()][:2] or texts[-2:]


def read_events(workspace: Workspace, days: Sequence[Manifest], users: pa.Array) -> pd.DataFrame:
    """Returns the events of some users (ascending) on stored days, newest day first. Columns: user_id, day, item_id, events."""
    names = [col.USER_ID, "day", col.ITEM_ID]
    parts = [pa.table({name: pa.array([], users.type if name == col.USER_ID else pa.string()) for name in names})]
    for manifest in reversed(days):
        rows = read_rows_of_users(workspace, manifest, [col.USER_ID, col.ITEM_IDS], users)
        lists = combine_chunks(rows.column(col.ITEM_IDS))
        owners = rows.column(col.USER_ID).take(pc.list_parent_indices(lists))
        if len(owners):
            day = pa.repeat(pa.scalar(manifest.ds), len(owners))
            parts.append(pa.table([owners, day, pc.list_flatten(lists)], names))
    events = pa.concat_tables(parts[1:] or parts, promote_options="permissive").to_pandas()
    counted: pd.DataFrame = events.groupby(names, sort=False).size().reset_index(name="events")
    return counted


def report_people(workspace: Workspace, ds: str, cells: HitCells, total: pa.Table) -> str:
    """Returns the section on five people of a report, "" if `evaluation.show_people` is off or nobody can be shown."""
    k, cell = workspace.config.evaluation.k[-1], cells.get((Scope.ALL, Population.ALL), {})
    served = MERGED if MERGED in cell else MODEL
    baseline = best_baseline(rows_of_cell(total, Scope.ALL, k, Population.ALL))
    if not workspace.config.evaluation.show_people or served not in cell or baseline is None:
        return ""
    hidden = workspace.tables.partitions.hidden.read().find(cell[served].column(col.USER_ID))
    chosen = choose_people(cell[served], cell[baseline], k, hidden)
    if not chosen:
        return ""
    rows = {name: cell[name].take(sorted(chosen.values())).to_pylist() for name in (served, baseline)}
    found = {
        one[col.USER_ID]: Found(
            one[col.USER_ID], one[col.TRUTH_COUNT], {served: one[hits_column(k)], baseline: other[hits_column(k)]}
        )
        for one, other in zip(rows[served], rows[baseline], strict=True)
    }
    users, titles = pa.array(found, cell[served].column(col.USER_ID).type), Titles(workspace, day_before(ds))
    had = read_events(workspace, find_event_days(workspace, ds).history[-HAD_DAYS:], users)
    lists, truth = (
        {row[col.USER_ID]: row for row in read_rows_of_users(workspace, workspace.need(name, ds), None, users).to_pylist()}
        for name in ("hit_rate_detail", "ground_truth")
    )
    shown = []
    for name, row in chosen.items():
        user = cell[served].column(col.USER_ID)[row].as_py()
        ranks = {item: rank for rank, item in enumerate(lists[user]["topk_ids"] or (), 1)}
        flags = zip(*(truth[user][flag] for flag in (col.GT_ITEMS, col.GT_IS_WARM, col.GT_IS_REPEAT)), strict=True)
        items = sorted(flags, key=lambda one: ranks.get(one[0], k + 1))
        where = [
            describe_ranks({MODEL: ranks.get(item, 0)}, k)
            + (", had in the window" if is_repeat else "" if is_warm else ", taken by nobody in the window")
            for item, is_warm, is_repeat in items
        ]
        last = had[had[col.USER_ID] == user][col.ITEM_ID].drop_duplicates().head(SHOWN_ITEMS).tolist()
        took = zip(titles.of([item for item, *_ in items]), where, strict=True)
        shown.append(ShownPerson(name, found[user], titles.of(last), list(took)))
    return people_section(shown, ds)
