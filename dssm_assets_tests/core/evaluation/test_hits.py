"""Hits equal those of the definition, in every scope and population."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.evaluation.evaluation_tables import HIT_COUNTS, HIT_RATE_DETAIL
from dssm_assets.core.evaluation.hits import count_hits, hit_ranks, hit_rate_detail, user_ndcg
from dssm_assets.core.evaluation.scorer import InteractedItems
from dssm_assets.core.evaluation.segments import TIERS, Cuts, Tier, tier_columns
from dssm_assets.core.schema import check_no_nulls, check_schema
from dssm_assets_tests.core.evaluation.worlds import (
    FixedScorer,
    events_table,
    read_interactions,
    slow_hits,
    truth_of,
)


def test_hit_ranks_by_hand() -> None:
    lists = np.array([[5, 5, 7, -1], [-1, -1, 0, 5]])
    #                      5 first   7   absent  outside  second user's 5  and 0
    ranks = hit_ranks(lists, np.array([0, 0, 0, 0, 1, 1]), np.array([5, 7, 0, -1, 5, 0]))
    assert ranks.tolist() == [0, 2, 4, 4, 3, 2]


def test_count_hits_by_hand_in_every_scope() -> None:
    # u (known) has a (repeat), b (new to u), d (of the history before the window) and z, which has no event in the window and no
    # vector; n is new and has a. Items: a, b, c, d. Lists: u a, d, c, b; n a, b, c, d.
    day = [("u", "a"), ("u", "b"), ("u", "d"), ("u", "z"), ("n", "a")]
    window = [("u", "a"), ("v", "b"), ("v", "d")]
    corpus = ["a", "b", "c", "d"]
    truth = truth_of(day, window, corpus)  # users n, u
    seen, ever = (
        read_interactions(events_table([("u", item, 1, 1) for item in items]), truth.user_ids, pa.array(corpus)).exclusions
        for items in ("a", "ad")
    )
    counts, without = count_hits(
        [FixedScorer(np.array([[0, 1, 2, 3], [0, 3, 2, 1]]))], truth, InteractedItems(seen, ever), [1, 2]
    )
    check_schema(HIT_COUNTS, counts.schema)
    rows = [tuple(row.values())[1:7] for row in counts.to_pylist()]
    assert [row for row in rows if row[1] == "warm"] == [
        ("all", "warm", "u", 3, 1, 2),
        ("discovery", "warm", "u", 2, 1, 1),  # without a, u's list is d, c, b
        ("new", "warm", "u", 1, 0, 0),  # b is the last of u's list
        ("repeat", "warm", "u", 1, 1, 1),
        ("unseen", "warm", "u", 1, 0, 1),  # without a and d it is c, b
    ]
    ndcg = {tuple(row.values())[1:4]: (row["ndcg_1"], row["ndcg_2"]) for row in counts.to_pylist()}
    one, second = 1.0, 1 / np.log2(3)  # discounts of the first and the second place
    assert ndcg["all", "warm", "u"] == ndcg["all", "all", "u"] == (1, 1)  # a, d fill both places
    assert ndcg["discovery", "warm", "u"] == (1, pytest.approx(one / (one + second)))  # d first, b missed
    assert ndcg["unseen", "warm", "u"] == (0, pytest.approx(second / one))  # c, b: the only item to find is second
    assert ndcg["unseen", "all", "u"] == (0, pytest.approx(second / (one + second)))
    assert ndcg["new", "all", "u"] == (0, 0)
    assert without["all/warm"] == without["unseen/warm"] == 1
    assert without["repeat/not_warm"] == 2
    assert without["all/all"] == 0


USERS, CORPUS = [1, 2, 3, 4, 5], [10, 11, 12, 13, 14, 15]
PAIRS = st.lists(st.tuples(st.sampled_from(USERS), st.sampled_from([*CORPUS, 98, 99])), max_size=16)


@given(PAIRS.filter(bool), PAIRS, PAIRS, st.data())
def test_count_hits_equals_the_definition(
    day: list[tuple[int, int]], window: list[tuple[int, int]], older: list[tuple[int, int]], data: st.DataObject
) -> None:
    older = [pair for pair in older if pair[1] in CORPUS]  # of items outside the corpus only the window is known
    users = sorted({user for user, _ in day})
    listed = st.lists(st.integers(0, len(CORPUS) - 1), unique=True)
    lists = np.array([(data.draw(listed) + [-1] * 7)[:7] for _ in users])
    ks = sorted(data.draw(st.sets(st.integers(1, 7), min_size=1)))
    truth = truth_of(day, window, CORPUS)
    seen, ever = (
        read_interactions(
            events_table([(user, item, 1, 0) for user, item in pairs], pa.int64()), truth.user_ids, pa.array(CORPUS)
        ).exclusions
        for pairs in (window, [*window, *older])
    )
    counts, without = count_hits([FixedScorer(lists)], truth, InteractedItems(seen, ever), ks)
    got = {(r["scope"], r["population"], r["user_id"]): r for r in counts.to_pylist()}
    as_ids = {
        user: [CORPUS[index] if index >= 0 else None for index in row] for user, row in zip(users, lists.tolist(), strict=True)
    }
    expected_cells = set()
    for scope in ("all", "discovery", "repeat", "new", "unseen"):
        for population in ("all", "not_warm", "warm"):
            for k in ks:
                slow = slow_hits(as_ids, day, window, older, scope=scope, population=population, k=k)
                for user, (wanted, hits) in slow.items():
                    row = got[scope, population, user]
                    assert (row["truth_count"], row[f"hits_{k}"]) == (wanted, hits)
                    expected_cells.add((scope, population, user))
                assert without[f"{scope}/{population}"] == len(users) - len(slow)
    assert set(got) == expected_cells


def test_hits_of_the_merged_list_are_counted_by_tier_of_items() -> None:
    # u has a (head), b (rest) and z, outside the corpus; its list is a, c. v has c (rest); its list is c, b.
    truth = truth_of([("u", "a"), ("u", "b"), ("u", "z"), ("v", "c")], [("u", "a")], ["a", "b", "c"])
    lists = np.array([[0, 2], [2, 1]])
    none = InteractedItems(
        *[read_interactions(events_table([("u", "a", 1, 1)]), truth.user_ids, pa.array(["a"])).exclusions] * 2
    )
    tiers = np.array([TIERS.index(tier) for tier in (Tier.HEAD, Tier.REST, Tier.REST)])
    scorers = [FixedScorer(lists, "merged"), FixedScorer(lists, "model")]
    rows = count_hits(scorers, truth, none, [1, 2], item_tier=tiers)[0].to_pylist()
    found = {
        (r["scorer"], r["scope"], r["user_id"]): (r["truth_count"], r["hits_1"], r["hits_2"])
        for r in rows
        if "tier" in r["scope"]
    }
    assert found == {
        ("merged", "tier_head", "u"): (1, 1, 1),
        ("merged", "tier_rest", "u"): (1, 0, 0),
        ("merged", "tier_rest", "v"): (1, 1, 1),
        ("merged", "tier_unseen", "u"): (1, 0, 0),
    }


def test_ndcg_by_hand() -> None:
    # User 0: two items, one second in the list, one missed. User 1: one item, first. User 2: no truth. User 3: third, k is 2.
    users, ranks, counts = np.array([0, 0, 1, 3]), np.array([1, 9, 0, 2]), np.array([2, 1, 0, 1])
    second = 1 / math.log2(3)
    assert user_ndcg(users, ranks, counts, 3)[[0, 1, 3]] == pytest.approx([second / (1 + second), 1, 0.5])
    assert user_ndcg(users, ranks, counts, 2)[[0, 1, 3]] == pytest.approx([second / (1 + second), 1, 0])
    assert np.isnan(user_ndcg(users, ranks, counts, 3)[2])
    # Three items to find among the first 2 places: the ideal has only two.
    assert user_ndcg(np.zeros(3, np.int64), np.array([0, 1, 2]), np.array([3]), 2).tolist() == [1]


LETTERS = ["a", "b", "c", "d"]


def test_detail_by_hand() -> None:
    truth = truth_of([("u", "d"), ("u", "b"), ("u", "zz"), ("n", "a")], [("u", "b"), ("v", "a")], LETTERS)
    lists = np.array([[-1, -1, -1], [3, 0, 1]])  # n has no vector
    scores = np.array([[-np.inf] * 3, [0.5, 0.25, 0.125]], np.float32)
    cuts = Cuts({"activity": pa.array(["0", "10-29"]), "town": pa.array(["x", "y"])})
    table = hit_rate_detail(lists, scores, truth, cuts, item_ids=pa.array(LETTERS))
    assert table.to_pylist() == [
        {
            "user_id": "n", "topk_ids": [], "topk_scores": [], "hit_ids": [], "bad_ids": [], "hits": 0, "truth_count": 1,
            "hit_rate": 0.0, "warm_hits": 0, "warm_truth_count": 0, "is_warm_user": False, "segment_activity": "0",
            "segment_town": "x",
        },
        {
            "user_id": "u", "topk_ids": ["d", "a", "b"], "topk_scores": [0.5, 0.25, 0.125], "hit_ids": ["d", "b"],
            "bad_ids": ["a"], "hits": 2, "truth_count": 3, "hit_rate": pytest.approx(2 / 3), "warm_hits": 1,
            "warm_truth_count": 1, "is_warm_user": True, "segment_activity": "10-29", "segment_town": "y",
        },
    ]  # fmt: skip
    check_schema(HIT_RATE_DETAIL, table.schema)
    check_no_nulls(HIT_RATE_DETAIL, table)
    assert {HIT_RATE_DETAIL.describe(name) for name in table.column_names}.isdisjoint({""})


@given(st.data())
def test_detail_equals_sets_and_loops(data: st.DataObject) -> None:
    pairs = st.lists(st.tuples(st.sampled_from("uvw"), st.sampled_from("abcdyz")), min_size=1, max_size=10)
    day, window = data.draw(pairs), data.draw(pairs)
    truth = truth_of(day, window, LETTERS)
    listed = st.lists(st.integers(0, 3), max_size=4, unique=True)
    lists = np.array([(data.draw(listed) + [-1] * 5)[:5] for _ in range(truth.num_users)])
    scores = np.arange(lists.size, dtype=np.float32).reshape(lists.shape)
    tier = np.array(data.draw(st.lists(st.integers(0, 3), min_size=4, max_size=4)))
    table = hit_rate_detail(lists, scores, truth, Cuts({}, tier), item_ids=pa.array(LETTERS))
    for row, own, values in zip(table.to_pylist(), lists.tolist(), scores.tolist(), strict=True):
        kept = list(dict.fromkeys(LETTERS[index] for index in own if index >= 0))
        wanted = {item for user, item in day if user == row["user_id"]}
        assert row["topk_ids"] == kept
        assert row["topk_scores"] == [values[own.index(LETTERS.index(item))] for item in kept]
        assert row["hit_ids"] == [item for item in kept if item in wanted]
        assert row["bad_ids"] == [item for item in kept if item not in wanted]
        assert (row["hits"], row["truth_count"]) == (len(set(kept) & wanted), len(wanted))
        for place, name in enumerate(TIERS):
            inside = {item for item in wanted if (tier[LETTERS.index(item)] if item in LETTERS else 3) == place}
            hits, truth_count = (row[column] for column in tier_columns(name))
            assert (hits, truth_count) == (len(set(kept) & inside), len(inside))
