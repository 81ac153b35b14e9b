"""What people had, got and took on an evaluated day: the tables and lists behind the page.

The code that counts hits (`steps/scoring.py`) also ranks these lists, so each rank and hit equals the day's tables. Baselines and
neighbors are fitted once for all people: this reads the whole log. Before that only rows of one person are read, by row group:
history, hits, items taken, and the stored list of the vectors.

Shapes: K list length, n items of a list, B users, P pairs of user and item to find.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
from dssm_assets.core.arrays.ragged import IntArray, Mask, row_blocks
from dssm_assets.core.channels.merge import MergedScorer
from dssm_assets.core.channels.reasons import describe_reasons, find_similar_own, split_scores
from dssm_assets.core.config.channels import ChannelName
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.evaluation.evaluation_tables import HIT_COUNTS, MERGED, MODEL, TOTAL_HIT_RATE, hits_column
from dssm_assets.core.evaluation.hits import hit_ranks
from dssm_assets.core.evaluation.labels import display_name
from dssm_assets.core.evaluation.people import Found
from dssm_assets.core.evaluation.rates import best_baseline, rows_of_cell
from dssm_assets.core.evaluation.scorer import Scorer
from dssm_assets.core.names import Population, Scope
from dssm_assets.service.engine.id_rows import IdRows
from dssm_assets.service.engine.shop_lists import ShopLists
from dssm_assets.steps.people import Titles, read_events
from dssm_assets.steps.scoring import (
    EvaluatedUsers,
    HitCounter,
    RankedUsers,
    find_scored_day,
    fit_rankers,
    read_evaluated_users,
)
from dssm_assets.steps.stored_interactions import find_event_days, read_rows_of_users
from dssm_assets.steps.workspace import Workspace, check_built_from, day_before
from dssm_assets.storage import layout
from dssm_assets.storage.local_files import ScratchArrays, ScratchFolder

SHOWN_PEOPLE: Final = 200_000
"""People among whom groups are sought: rows of more are not read."""
LONG_LOG: Final = 5_000_000
"""Rows of user history from which on nothing is fitted unasked: it takes minutes."""
MANY_ITEMS: Final = 500_000
"""The same for items: it takes half a gigabyte."""
DEPTH: Final = 1000
"""Ranks beyond it are not looked for."""
COUNTED_PEOPLE: Final = 1000
"""People whose misses are counted by reason."""
_BLOCK: Final = 128


class Miss(StrEnum):
    """Why the list lacks an item that was taken; the first reason that applies counts."""

    NO_ITEM = "not in the corpus: the item table of the day before lacks it"
    FILTERED = "filtered: serving.blocked_items or stocked_items hide it today"
    COLD = "cold: nobody had an event with it before the day"
    UNPROPOSED = "not proposed: below the cut in every channel"
    OUTRANKED = "outranked: proposed by a channel, below the cut in the merged list"
    BELOW = "below the cut"


@dataclass(frozen=True)
class Person:
    """One evaluated user of the day.

    Attributes:
        history: events before the day, newest day first: user_id, day, item_id, events.
        lists: name -> the list: rank from 1, item_id, score (nan where the scorer has none), is_taken; of the merged list also channels,
            why, and "goes with", titles of the person's similar items.
        taken: items taken on the day: item_id, rank in each list (0: not among the first DEPTH), miss ("": found).
        hits: scorer -> hits among the first K, as hit_counts has them.
    """

    history: pd.DataFrame
    lists: Mapping[str, pd.DataFrame]
    taken: pd.DataFrame
    hits: Mapping[str, int]
    found: Found


def order_segments(labels: Iterable[str]) -> list[str]:
    """Returns labels by their first number, 1-9 before 10-29 before 100+; those without a number come last."""

    def first_number(label: str) -> tuple[bool, int, str]:
        digits = label[: len(label) - len(label.lstrip("0123456789"))]
        return not digits, int(digits or 0), label

    return sorted(labels, key=first_number)


class ExploredDay:
    """An evaluated day."""

    def __init__(self, workspace: Workspace, ds: str) -> None:
        """Opens the tables; a ProvenanceError says that the day is being made again."""
        self.workspace, self.ds = workspace, ds
        self.k = workspace.config.evaluation.k[-1]
        self._day, self._hit_counts = find_scored_day(workspace, ds), workspace.need(HIT_COUNTS.name, ds)
        total = workspace.need(TOTAL_HIT_RATE.name, ds)
        check_built_from(self._hit_counts, *self._day)
        check_built_from(total, self._hit_counts)
        self.total, self.titles = workspace.tables.read(total), Titles(workspace, day_before(ds))
        rows = rows_of_cell(self.total, Scope.ALL, self.k, Population.ALL)
        self.served = MERGED if MERGED in rows else MODEL
        """The list that users get."""
        self.baseline = best_baseline(rows) or MODEL
        """The baseline with the most hits."""
        self._history = find_event_days(workspace, ds).history
        self.log_rows = sum(manifest.rows for manifest in self._history)
        self.is_large = self.log_rows >= LONG_LOG or self._day.item_vectors.rows >= MANY_ITEMS

    @cached_property
    def people(self) -> pd.DataFrame:
        """Returns the evaluated users with what was found: user_id, to_find, found, baseline_found, gain, and segments."""
        tables, hidden, hits = self.workspace.tables, self.workspace.tables.partitions.hidden.read(), hits_column(self.k)
        cell = (pc.field(col.SCOPE) == str(Scope.ALL)) & (pc.field(col.POPULATION) == str(Population.ALL))
        found = {
            name: tables.open(self._hit_counts)
            .scanner([col.USER_ID, col.TRUTH_COUNT, hits], filter=cell & (pc.field(col.SCORER) == name))
            .head(SHOWN_PEOPLE)
            .to_pandas()
            .set_index(col.USER_ID)
            for name in (self.served, self.baseline)
        }
        detail = tables.open(self.workspace.need("hit_rate_detail", self.ds))
        names = [col.USER_ID, col.IS_WARM_USER, *(name for name in detail.schema.names if name.startswith("segment_"))]
        table = pd.DataFrame(
            {
                "to_find": found[self.served][col.TRUTH_COUNT],
                "found": found[self.served][hits],
                "baseline_found": found[self.baseline][hits],
            }
        )
        table["gain"] = table["found"] - table["baseline_found"]
        known = hidden.drop_rows(detail.head(SHOWN_PEOPLE, columns=names)).to_pandas().set_index(col.USER_ID)
        return table.join(known, how="inner").reset_index()

    @property
    def segments(self) -> list[str]:
        return [name.removeprefix("segment_") for name in self.people.columns if name.startswith("segment_")]

    @cached_property
    def groups(self) -> dict[str, pd.Series]:
        """Returns the groups of people to choose from: name -> ids; raises an InputError if nobody is there."""
        people = self.people
        if people.empty:
            raise InputError(
                Fault(f"hit_counts of {self.ds}", "evaluated users", "none who may be shown", "choose another day")
            )
        some = {
            "everybody": people,
            "hits": people[people["found"] > 0],
            "misses": people[people["found"] < people["to_find"]],
            "nothing found": people[people["found"] == 0],
            "new users": people[~people[col.IS_WARM_USER]],
            f"lost most against {display_name(self.baseline)}": people[people["gain"] < 0].sort_values("gain", kind="stable"),
        }
        for name in self.segments:
            rows = {str(value): one for value, one in people.groupby(f"segment_{name}")}
            some |= {f"{name}: {value}": rows[value] for value in order_segments(rows)}
        return {name: rows[col.USER_ID] for name, rows in some.items() if len(rows)}

    def find_user(self, text: str) -> Any:
        """Returns the id of an evaluated user as the tables have it; raises an InputError if there is none."""
        for one in (text, text.strip()):
            try:
                user = one if pa.types.is_string(self._user_type) else pa.scalar(int(one), self._user_type).as_py()
            except (ValueError, OverflowError, pa.ArrowException):
                continue
            if not self.workspace.tables.partitions.hidden.read().hides(user) and self._read_hits(self._one(user)):
                return user
        got = f"{text}, who took nothing then or was not evaluated"
        raise InputError(Fault("person", f"an evaluated user of {self.ds}", got, "choose another person or day"))

    @cached_property
    def _user_type(self) -> pa.DataType:
        return self.workspace.tables.read_schema(self._hit_counts).field(col.USER_ID).type

    def _one(self, user_id: Any) -> pa.Array:
        return pa.array([user_id], self._user_type)

    @property
    def is_fitted(self) -> bool:
        """Whether `fit` has run. Until then `person` returns only the stored list of the vectors."""
        return "_counter" in vars(self)

    def fit(self) -> None:
        """Fits baselines and neighbors, which takes as long as in `hit_counts`."""
        _ = self._counter

    @cached_property
    def _events(self) -> pd.DataFrame:
        """Returns the events of all evaluated users of a small home: a file per day is opened once, not for each person."""
        return read_events(self.workspace, self._history, self._evaluated.truth.user_ids)

    @cached_property
    def _evaluated(self) -> EvaluatedUsers:
        return read_evaluated_users(self.workspace, self._day)

    @cached_property
    def _counter(self) -> HitCounter:
        self._scratch = ScratchFolder("explore", self.workspace.loaded.scratch)
        rankers = fit_rankers(self.workspace, self.ds, self._evaluated, ScratchArrays(self._scratch.path))
        check_built_from(self._hit_counts, *rankers.built_from)
        self._cold = rankers.cold_items
        return HitCounter(self._day, rankers, self.workspace)

    @cached_property
    def _is_hidden_item(self) -> Mask:
        """Mask of the corpus: true for items that serving.blocked_items or serving.stocked_items hide."""
        serving, loaded = self.workspace.config.serving, self.workspace.loaded
        root, options = layout.serving_root(loaded.root), loaded.config.storage.options
        shown = ShopLists(serving.blocked_items, serving.stocked_items, root, options).find_shown(
            IdRows(self._evaluated.item_ids, "items")
        )
        return np.zeros(len(self._evaluated.item_ids), np.bool_) if shown is None else ~shown

    def person(self, user_id: Any) -> Person:
        """Returns an evaluated user, with the lists of all scorers if `is_fitted`."""
        users = self._one(user_id)
        (truth,) = read_rows_of_users(self.workspace, self._day.ground_truth, None, users).to_pylist()
        ids, hits = truth[col.GT_ITEMS], self._read_hits(users)
        lists, ranks, misses = (self._rank if self.is_fitted else self._read_stored_list)(users, ids)
        taken = pd.DataFrame({col.ITEM_ID: ids, **ranks, "miss": misses})
        shown = dict.fromkeys((self.served, self.baseline))
        found = Found(user_id, len(ids), {name: hits[name] for name in shown if name in hits})
        if self.is_fitted and not self.is_large:
            history = self._events[self._events[col.USER_ID] == user_id].reset_index(drop=True)
        else:
            history = read_events(self.workspace, self._history, users)
        return Person(history, lists, taken, hits, found)

    def _read_stored_list(self, users: pa.Array, taken: list[Any]) -> tuple[dict[str, pd.DataFrame], dict[str, Any], list[str]]:
        detail = self.workspace.need("hit_rate_detail", self.ds)
        (row,) = read_rows_of_users(self.workspace, detail, [col.USER_ID, "topk_ids", "topk_scores"], users).to_pylist()
        ids = row["topk_ids"] or []
        ranks = {item: rank for rank, item in enumerate(ids, 1)}
        found = pd.DataFrame({"rank": range(1, len(ids) + 1), col.ITEM_ID: ids, "score": row["topk_scores"] or []})
        return (
            {MODEL: found.assign(is_taken=found[col.ITEM_ID].isin(taken))},
            {MODEL: [ranks.get(item, 0) for item in taken]},
            ["" if item in ranks else Miss.BELOW for item in taken],
        )

    def _rank(self, users: pa.Array, taken: list[Any]) -> tuple[dict[str, pd.DataFrame], dict[str, Any], list[str]]:
        ranked, corpus = self._counter.rank(users), self._evaluated.item_ids
        items = find_positions(cast_ids(pa.array(taken), corpus.type, "taken"), corpus)
        lists, ranks, one = {}, {}, np.zeros(1, np.int64)
        for scorer in ranked.scorers:
            top = scorer.top_items(one, DEPTH)
            at = hit_ranks(top, np.zeros(len(items), np.int64), items) + 1
            ranks[scorer.name] = np.where(at > DEPTH, 0, at)
            lists[scorer.name] = self._describe_list(scorer, ranked, top[0][top[0] >= 0], items)
        return lists, ranks, self._find_misses(ranked, 1, np.zeros(len(items), np.int64), items).tolist()

    def _describe_list(self, scorer: Scorer, ranked: RankedUsers, items: IntArray, taken: IntArray) -> pd.DataFrame:
        found = pd.DataFrame(
            {
                "rank": np.arange(1, len(items) + 1),
                col.ITEM_ID: self._evaluated.item_ids.take(pa.array(items)).to_pylist(),
                "score": np.nan,
                "is_taken": np.isin(items, taken),
            }
        )
        if scorer.name == MODEL:
            found["score"] = ranked.model.score_items(np.zeros(1, np.int64), items[None])[0]
        if isinstance(scorer, MergedScorer) and scorer.name == MERGED:
            found = found.drop(columns="score").join(self._explain(scorer, ranked, items[: self.k]))
        return found

    def _explain(self, scorer: MergedScorer, ranked: RankedUsers, items: IntArray) -> pd.DataFrame:
        """Returns for each item [n] its log-odds, the channels that proposed it, the reasons, and the person's similar items."""
        found, merge = scorer.users.read(np.zeros(1, np.int64)), scorer.merge
        if scorer.without_vectors is not None and not found.has_items_of([ChannelName.VECTORS])[0]:
            merge = scorer.without_vectors
        parts = split_scores(merge, found, items)
        names = {
            int(item): ", ".join(str(name) for name, position in zip(found.channels, positions, strict=True) if position >= 0)
            for item, positions in zip(found.items[0], found.positions[:, 0].T, strict=True)
        }
        assert self._counter.shared is not None
        similar = find_similar_own(self._counter.shared.neighbors, ranked.interacted.history.items.astype(np.int64), items)
        own = [self._evaluated.item_ids.take(pa.array(mine)).to_pylist() for mine in similar]
        self.titles.of([item for mine in own for item in mine])  # read at once
        return pd.DataFrame(
            {
                "score": [sum(one.values()) for one in parts],
                "channels": [names.get(int(item), "popular") for item in items],
                "why": [describe_reasons(one, []) for one in parts],
                "goes with": [", ".join(self.titles.of(mine)) for mine in own],
            }
        )

    def _find_misses(self, ranked: RankedUsers, num_users: int, pair_user: IntArray, pair_item: IntArray) -> Any:
        """Returns why each item to find [P] is not in the served list; "" if it is."""
        served = next(one for one in ranked.scorers if one.name == self.served)
        rows, is_known = np.arange(num_users), pair_item >= 0
        is_found = hit_ranks(served.top_items(rows, self.k), pair_user, pair_item) < self.k
        reasons = [(is_found, ""), (~is_known, Miss.NO_ITEM), (self._is_hidden_item[pair_item], Miss.FILTERED)]
        reasons.append((np.isin(pair_item, self._cold), Miss.COLD))
        rest = Miss.BELOW
        if isinstance(served, MergedScorer):
            candidates = served.users.read(rows).items
            reasons.append((hit_ranks(candidates, pair_user, pair_item) < candidates.shape[1], Miss.OUTRANKED))
            rest = Miss.UNPROPOSED
        return np.select([where for where, _ in reasons], [str(miss) for _, miss in reasons], str(rest))

    def _read_hits(self, users: pa.Array) -> dict[str, int]:
        rows = read_rows_of_users(self.workspace, self._hit_counts, None, users).to_pylist()
        cell = (str(Scope.ALL), str(Population.ALL))
        return {row[col.SCORER]: row[hits_column(self.k)] for row in rows if (row[col.SCOPE], row[col.POPULATION]) == cell}

    def count_misses(self, most: int = COUNTED_PEOPLE) -> pd.Series:
        """Returns how many items that the first people took were missed for each reason, and how many found."""
        truth, order = self._evaluated.truth, ["found", *map(str, Miss)]
        counts = pd.Series(0, index=order)
        for users in row_blocks(min(most, truth.num_users), _BLOCK):
            block, _ = truth.select_users(users)
            misses = self._find_misses(self._counter.rank(block.user_ids), block.num_users, block.pair_user, block.pair_item)
            counts = counts.add(pd.Series(misses).replace("", "found").value_counts(), fill_value=0)
        return counts[order].astype(int)

    def find_holders(self, item: Any, most: int = 10) -> tuple[int, pd.DataFrame]:
        """Returns how many people have an item in the list of the vectors, and those with the best ranks: user_id, rank."""
        found, seen = list[pd.DataFrame](), 0
        hidden = self.workspace.tables.partitions.hidden.read()
        detail = self.workspace.need("hit_rate_detail", self.ds)
        for batch in self.workspace.tables.batches(detail, [col.USER_ID, "topk_ids"]):
            lists = batch.column(1)
            is_item = pc.equal(lists.flatten(), pa.scalar(item, lists.type.value_type)).to_numpy(zero_copy_only=False)
            at, owner = np.flatnonzero(is_item), pc.list_parent_indices(lists).to_numpy()
            starts = lists.offsets.to_numpy() - lists.offsets[0].as_py()
            rows = pa.table({col.USER_ID: batch.column(0).take(pa.array(owner[at])), "rank": at - starts[owner[at]] + 1})
            found.append(hidden.drop_rows(rows).to_pandas())
            if (seen := seen + batch.num_rows) >= SHOWN_PEOPLE:
                break
        people = pd.concat(found).sort_values("rank", kind="stable")
        return len(people), people.head(most)
