"""What people had, got and took on an evaluated day: the tables and lists behind the page.

The lists are ranked by the code that counted the hits (`steps/scoring.py`), so that each rank and hit equals the day's tables. Rows of one
person are read by row group. What all people share (baselines, neighbours) is fitted once per day: seconds on the demo, about as long as
`hit_counts` takes for few users.

Shapes: K list length, n items of a list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import cast_ids, find_positions
from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.channels.merge import Candidates, MergedScorer
from dssm_assets.core.channels.reasons import describe_reasons, find_similar_own, split_scores
from dssm_assets.core.config.channels import ChannelName
from dssm_assets.core.evaluation.evaluation_tables import HIT_COUNTS, MERGED, MODEL, TOTAL_HIT_RATE, hits_column
from dssm_assets.core.evaluation.labels import display_name
from dssm_assets.core.evaluation.rates import best_baseline, rows_of_cell
from dssm_assets.core.evaluation.scorer import Scorer
from dssm_assets.core.names import Population, Scope
from dssm_assets.steps.scoring import (
    EvaluatedUsers,
    HitCounter,
    RankedUsers,
    find_scored_day,
    fit_rankers,
    read_evaluated_users,
)
from dssm_assets.steps.stored_interactions import find_event_days, read_rows_of_users
from dssm_assets.steps.workspace import Workspace
from dssm_assets.storage.local_files import ScratchArrays, ScratchFolder

SHOWN_PEOPLE: Final = 200_000
"""People among whom groups are sought: rows of more are not read."""
DEPTH: Final = 1000
"""Ranks beyond it are not looked for."""
COUNTED_PEOPLE: Final = 300
"""People whose misses are counted by reason."""


class Miss(StrEnum):
    """Why an item that was taken is not in the list, in the order in which reasons are looked for."""

    NO_ITEM = "not in the corpus: the item table of the day before lacks it"
    COLD = "cold: nobody had an event with it before the day"
    UNPROPOSED = "below the cut in every channel: no channel proposed it"
    OUTRANKED = "found by a channel and outranked in the merged list"
    BELOW = "below the cut"


@dataclass(frozen=True)
class Person:
    """One evaluated user of the day.

    Attributes:
        history: events before the day, newest day first: day, item_id, events.
        lists: name -> the list: rank from 1, item_id, score (nan where the scorer has none), channels, why, is_taken.
        taken: items taken on the day: item_id, had_before, rank in each list (0: not among the first DEPTH), miss.
        hits: scorer -> hits among the first K, as hit_counts has them.
    """

    user_id: Any
    history: pd.DataFrame
    lists: Mapping[str, pd.DataFrame]
    taken: pd.DataFrame
    hits: Mapping[str, int]

    def sentence(self, served: str, baseline: str) -> str:
        found, others = self.hits.get(served, 0), self.hits.get(baseline)
        more = "" if others is None else f"; {display_name(baseline)} would find {others}"
        return f"{found} of {len(self.taken)} found by the {display_name(served)}{more}."


class ExploredDay:
    """An evaluated day. Reading needs no more than the tables; ranking fits what all people share, at the first person."""

    def __init__(self, workspace: Workspace, ds: str) -> None:
        self.workspace, self.ds = workspace, ds
        self.k = workspace.config.evaluation.k[-1]
        self._day = find_scored_day(workspace, ds)
        self._hit_counts = workspace.need(HIT_COUNTS.name, ds)
        self.digest = self._hit_counts.digest
        """Changes when the day is made again."""
        self.total = workspace.tables.read(workspace.need(TOTAL_HIT_RATE.name, ds))
        rows = rows_of_cell(self.total, Scope.ALL, self.k, Population.ALL)
        self.served = MERGED if MERGED in rows else MODEL
        """The list that users get."""
        self.baseline = best_baseline(rows) or MODEL
        """The baseline with the most hits."""

    @cached_property
    def people(self) -> pd.DataFrame:
        """Returns the evaluated users with what was found: user_id, to_find, found, baseline_found, gain, and segments."""
        cell = (pc.field(col.SCOPE) == str(Scope.ALL)) & (pc.field(col.POPULATION) == str(Population.ALL))
        wanted = cell & pc.field(col.SCORER).isin([self.served, self.baseline])
        names = [col.SCORER, col.USER_ID, col.TRUTH_COUNT, hits_column(self.k)]
        rows = self.workspace.tables.open(self._hit_counts).to_table(columns=names, filter=wanted).to_pandas()
        found = rows.pivot(index=col.USER_ID, columns=col.SCORER, values=hits_column(self.k)).iloc[:SHOWN_PEOPLE]
        to_find = rows.groupby(col.USER_ID)[col.TRUTH_COUNT].first()
        detail = self.workspace.tables.read(self.workspace.need("hit_rate_detail", self.ds)).slice(0, SHOWN_PEOPLE)
        segments = [name for name in detail.column_names if name.startswith("segment_")]
        known = detail.select([col.USER_ID, col.IS_WARM_USER, *segments]).to_pandas().set_index(col.USER_ID)
        table = pd.DataFrame(
            {
                "to_find": to_find.reindex(found.index),
                "found": found[self.served],
                "baseline_found": found[self.baseline],
                "gain": found[self.served] - found[self.baseline],
            }
        )
        return table.join(known).reset_index()

    def groups(self) -> dict[str, pd.Series]:
        """Returns the groups of people to choose from: name -> ids."""
        people = self.people
        some = {
            "everybody": people,
            "hits": people[people["found"] > 0],
            "misses": people[people["found"] < people["to_find"]],
            "nothing found": people[people["found"] == 0],
            "new users": people[~people[col.IS_WARM_USER]],
            f"lost most against {display_name(self.baseline)}": people[people["gain"] < 0].sort_values("gain", kind="stable"),
        }
        for name in (one for one in people.columns if one.startswith("segment_")):
            for value, rows in people.groupby(name, sort=True):
                some[f"{name.removeprefix('segment_')}: {value}"] = rows
        return {name: rows[col.USER_ID] for name, rows in some.items() if len(rows)}

    def find_user(self, text: str) -> Any | None:
        """Returns the id of an evaluated user as the tables have it; None if there is none."""
        kind = self._users.type
        try:
            wanted = cast_ids(pa.array([text]), kind, "user") if pa.types.is_string(kind) else pa.array([int(text)], kind)
        except (ValueError, pa.ArrowException):
            return None
        row = pc.index(self._users, wanted[0]).as_py()
        return None if row < 0 else self._users[row].as_py()

    @cached_property
    def _users(self) -> pa.Array:
        return self._evaluated.truth.user_ids

    @cached_property
    def _evaluated(self) -> EvaluatedUsers:
        return read_evaluated_users(self.workspace, self._day)

    @cached_property
    def _counter(self) -> HitCounter:
        self._scratch = ScratchFolder("explore", self.workspace.loaded.scratch)
        rankers = fit_rankers(self.workspace, self.ds, self._evaluated, ScratchArrays(self._scratch.path))
        self._cold = frozenset(rankers.cold_items.tolist())
        return HitCounter(self._day, rankers, self.workspace)

    @property
    def item_ids(self) -> pa.Array:
        return self._evaluated.item_ids

    def person(self, user_id: Any) -> Person:
        """Returns an evaluated user with the lists of all scorers."""
        counter, users = self._counter, pa.array([user_id], self._users.type)
        ranked = counter.rank(users)
        taken = self._read_taken(users)
        items = find_positions(cast_ids(pa.array(taken["item_id"]), self.item_ids.type, "taken"), self.item_ids)
        lists = {one.name: self._read_list(one, ranked, set(items.tolist())) for one in ranked.scorers if _is_shown(one.name)}
        for name, found in lists.items():
            rank_of = dict(zip(found["item"], found["rank"], strict=True))
            taken[name] = [rank_of.get(int(item), 0) if item >= 0 else 0 for item in items]
        taken["miss"] = self._find_misses(ranked, items, taken[self.served].to_numpy())
        return Person(user_id, self._read_history(users), lists, taken, self._read_hits(users))

    def _read_list(self, scorer: Scorer, ranked: RankedUsers, taken: set[int]) -> pd.DataFrame:
        one = np.zeros(1, np.int64)
        items = scorer.top_items(one, DEPTH)[0]
        items = items[items >= 0]
        scores, channels, why = np.full(len(items), np.nan), [""] * len(items), [""] * len(items)
        if scorer.name == MODEL:
            scores = ranked.model.score_items(one, items[None])[0]
        if isinstance(scorer, MergedScorer) and scorer.name == MERGED:
            scores, channels, why = self._explain(scorer, ranked, items)
        return pd.DataFrame(
            {
                "rank": np.arange(1, len(items) + 1),
                "item": items,
                "item_id": self.item_ids.take(pa.array(items)).to_pylist(),
                "score": scores,
                "channels": channels,
                "why": why,
                "is_taken": [int(item) in taken for item in items],
            }
        )

    def _explain(self, scorer: MergedScorer, ranked: RankedUsers, items: IntArray) -> tuple[Any, list[str], list[str]]:
        found: Candidates = scorer.users.read(np.zeros(1, np.int64))
        merge = scorer.merge
        if scorer.without_vectors is not None and not found.has_items_of([ChannelName.VECTORS])[0]:
            merge = scorer.without_vectors
        parts = split_scores(merge, found, items[: self.k])
        proposed = (found.positions[:, 0] >= 0).T  # [C, channels]
        column_of = {int(item): column for column, item in enumerate(found.items[0])}
        names = [
            [str(name) for name, is_own in zip(found.channels, proposed[column_of[int(item)]], strict=True) if is_own]
            if int(item) in column_of
            else ["popular"]
            for item in items
        ]
        assert self._counter.shared is not None
        own = ranked.interacted.history.items.astype(np.int64)
        similar = find_similar_own(self._counter.shared.neighbors, own, items[: self.k])
        ids = [self.item_ids.take(pa.array(mine)).to_pylist() for mine in similar]
        why = [describe_reasons(one, mine) for one, mine in zip(parts, ids, strict=True)]
        scores = np.full(len(items), np.nan)
        scores[: len(parts)] = [sum(one.values()) for one in parts]
        return scores, [", ".join(one) for one in names], why + [""] * (len(items) - len(why))

    def _find_misses(self, ranked: RankedUsers, items: IntArray, ranks: IntArray) -> list[str]:
        merged = next((one for one in ranked.scorers if one.name == MERGED), None)
        proposed = set[int]()
        if isinstance(merged, MergedScorer):
            proposed = set(merged.users.read(np.zeros(1, np.int64)).items[0].tolist())
        found: list[str] = []
        for item, rank in zip(items.tolist(), ranks.tolist(), strict=True):
            if 0 < rank <= self.k:
                found.append("")
            elif item < 0:
                found.append(Miss.NO_ITEM)
            elif item in self._cold:
                found.append(Miss.COLD)
            elif merged is None:
                found.append(Miss.BELOW)
            else:
                found.append(Miss.OUTRANKED if item in proposed else Miss.UNPROPOSED)
        return found

    def _read_taken(self, users: pa.Array) -> pd.DataFrame:
        (row,) = read_rows_of_users(self.workspace, self._day.ground_truth, None, users).to_pylist()
        return pd.DataFrame({"item_id": row[col.GT_ITEMS], "had_before": row[col.GT_IS_REPEAT]})

    def _read_hits(self, users: pa.Array) -> dict[str, int]:
        rows = read_rows_of_users(self.workspace, self._hit_counts, None, users).to_pylist()
        cell = (str(Scope.ALL), str(Population.ALL))
        return {row[col.SCORER]: row[hits_column(self.k)] for row in rows if (row[col.SCOPE], row[col.POPULATION]) == cell}

    def _read_history(self, users: pa.Array) -> pd.DataFrame:
        days = []
        for manifest in reversed(find_event_days(self.workspace, self.ds).history):
            for row in read_rows_of_users(self.workspace, manifest, [col.USER_ID, col.ITEM_IDS], users).to_pylist():
                counts = pd.Series(row[col.ITEM_IDS]).value_counts(sort=False)
                days.append(pd.DataFrame({"day": manifest.ds, "item_id": counts.index, "events": counts.to_numpy()}))
        return pd.concat(days, ignore_index=True) if days else pd.DataFrame({"day": [], "item_id": [], "events": []})

    def count_misses(self, most: int = COUNTED_PEOPLE) -> pd.Series:
        """Returns how many items that some people took were missed for each reason."""
        users = self._users[: min(most, len(self._users))]
        reasons = [self.person(user.as_py()).taken["miss"] for user in users]
        counts = pd.concat(reasons).value_counts()
        found: pd.Series = counts.reindex([*Miss, ""], fill_value=0).rename(index={"": "found"})
        return found


def _is_shown(scorer: str) -> bool:
    return not scorer.startswith(f"{MERGED}_without")


class Titles:
    """Names of items: the columns of an item table that look like names."""

    def __init__(self, workspace: Workspace, ds: str) -> None:
        self._workspace, self._table = workspace, workspace.need("item_table", ds)
        names = [column.name for column in self._table.columns]
        self.columns = _guess_names(workspace.tables.open(self._table).schema, names)
        self._known: dict[Any, str] = {}

    def of(self, item_ids: Sequence[Any]) -> list[str]:
        """Returns the title of each item; its id where it has none."""
        lacking = [item for item in dict.fromkeys(item_ids) if item not in self._known]
        if lacking and self.columns:
            stored = self._workspace.tables.open(self._table)
            kind = stored.schema.field(col.ITEM_ID).type
            rows = stored.to_table(
                columns=[col.ITEM_ID, *self.columns], filter=pc.field(col.ITEM_ID).isin(pa.array(lacking, kind))
            ).to_pylist()
            for row in rows:
                words = [str(row[name]) for name in self.columns if row[name] not in (None, "")]
                self._known[row[col.ITEM_ID]] = " / ".join(words)
        return [self._known.get(item) or str(item) for item in item_ids]


def _guess_names(schema: pa.Schema, names: Sequence[str]) -> list[str]:
    """Returns columns of text that look like names: title, name, product; else the last two columns of text."""
    texts = [name for name in names if name != col.ITEM_ID and pa.types.is_string(_value_type(schema.field(name).type))]
    named = [name for name in texts if any(word in name.lower() for word in ("title", "name", "headline"))]
    return named[:1] or [name for name in texts if "type" in name.lower() or "categor" in name.lower()][:2] or texts[-2:]


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind
