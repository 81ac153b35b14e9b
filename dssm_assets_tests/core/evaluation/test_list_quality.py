"""Coverage, bias, novelty and overlap: by hand, and against loops over sets on any lists and any cut into batches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.errors import InputError
from dssm_assets.core.evaluation import list_quality as module
from dssm_assets.core.evaluation.list_quality import OVERLAP_SCHEMA, QUALITY_SCHEMA, list_overlap, list_quality
from dssm_assets.core.evaluation.segments import TIERS, ItemPopularity, Tier

ITEMS = "abcdefgh"
Lists = dict[str, list[str]]


def batches(lists: Lists, size: int = 100) -> list[pa.RecordBatch]:
    users = sorted(lists)
    table = pa.table(
        {"user_id": pa.array(users, pa.string()), "topk_ids": pa.array([lists[u] for u in users], pa.list_(pa.string()))}
    )
    return table.to_batches(max_chunksize=size)


def popularity(counts: Sequence[int]) -> ItemPopularity:
    return ItemPopularity(pa.array(list(ITEMS[: len(counts)])), np.array(counts))


def test_list_quality_by_hand() -> None:
    # p = 7/11, 2/11, 1/11, 1/11; two items have events, so only a is the head. At 1: a, a.
    rows = list_quality(batches({"u": ["a", "b"], "v": ["a"], "w": []}), popularity([6, 1, 0, 0]), [1, 2]).to_pylist()
    first, second = -math.log2(7 / 11), -math.log2(2 / 11)
    assert rows == [
        {"k": 1, "users": 2, "coverage": 0.25, "popularity_bias": 1.0, "novelty": pytest.approx(first), "mean_length": 1.0},
        {
            "k": 2, "users": 2, "coverage": 0.5, "popularity_bias": pytest.approx(2 / 3),
            "novelty": pytest.approx((2 * first + second) / 3), "mean_length": 1.5,
        },
    ]  # fmt: skip
    assert rows[1]["novelty"] == pytest.approx(1.255, abs=5e-4)


def test_list_overlap_by_hand() -> None:
    # u: [a, b, c] and [c, a, x]: at 3 two of three, Jaccard 2/4; at 1 nothing. v: 2 and 3 long, so cut to 2: b alone, 1/2
    # and 1/3; at 1 a against b. w has no list before, y is new, z has gone.
    now = batches({"u": ["a", "b", "c"], "v": ["a", "b"], "w": ["a"], "y": ["a"]})
    before = batches({"u": ["c", "a", "x"], "v": ["b", "h", "a"], "w": [], "z": ["a"]})
    assert list_overlap(now, before, [1, 3]).to_pylist() == [
        {"k": 1, "users": 2, "kept": 0.0, "jaccard": 0.0},
        {
            "k": 3, "users": 2, "kept": pytest.approx((2 / 3 + 1 / 2) / 2), "jaccard": pytest.approx((2 / 4 + 1 / 3) / 2),
        },
    ]  # fmt: skip


def test_empty_lists_give_no_rows() -> None:
    assert list_quality(batches({"u": []}), popularity([1]), [1]).equals(QUALITY_SCHEMA.empty_table())
    assert list_quality([], popularity([1]), [1]).num_rows == 0
    one = {"u": ["a"]}
    for now, before in ((one, {}), ({}, one), (one, {"u": []}), (one, {"v": ["a"]})):
        assert list_overlap(batches(now), batches(before), [1]).equals(OVERLAP_SCHEMA.empty_table())


def test_a_list_with_an_item_outside_the_corpus_is_refused() -> None:
    with pytest.raises(InputError, match="items of the corpus, got 1 entries outside it"):
        list_quality(batches({"u": ["a", "zz"]}), popularity([1]), [1])


lists_of_users = st.dictionaries(
    st.sampled_from([f"u{n:02d}" for n in range(12)]), st.permutations(ITEMS).map(list), max_size=8
)


@given(st.data(), lists_of_users, lists_of_users, st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_quality_and_overlap_equal_sets_and_loops_in_any_batches(
    data: st.DataObject, now: Lists, before: Lists, size: int, size_before: int, block: int
) -> None:
    for lists in (now, before):
        for user in lists:
            lists[user] = lists[user][: data.draw(st.integers(0, len(ITEMS)))]
    counts = data.draw(st.lists(st.integers(0, 5), min_size=len(ITEMS), max_size=len(ITEMS)))
    ks, items = [1, 3, 8], popularity(counts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_USERS", block)
        overlap = {r["k"]: r for r in list_overlap(batches(now, size), batches(before, size_before), ks).to_pylist()}
    quality = {r["k"]: r for r in list_quality(batches(now, size), items, ks).to_pylist()}
    head = {ITEMS[i] for i in np.flatnonzero(items.tier == TIERS.index(Tier.HEAD))}
    for k in ks:
        listed = [item for own in now.values() for item in own[:k]]
        assert (k in quality) == bool(listed)
        if listed:
            assert quality[k]["coverage"] == len(set(listed)) / len(ITEMS)
            assert quality[k]["popularity_bias"] == pytest.approx(sum(item in head for item in listed) / len(listed))
            bits = [-math.log2((counts[ITEMS.index(item)] + 1) / (sum(counts) + len(ITEMS))) for item in listed]
            assert quality[k]["novelty"] == pytest.approx(sum(bits) / len(bits))
        both = [user for user in now if now[user] and before.get(user)]
        assert (k in overlap) == bool(both)
        if both:
            cut = [(user, min(k, len(now[user]), len(before[user]))) for user in both]
            pairs = [(set(now[user][:n]), set(before[user][:n]), n) for user, n in cut]
            assert overlap[k]["users"] == len(both)
            assert overlap[k]["kept"] == pytest.approx(sum(len(a & b) / n for a, b, n in pairs) / len(pairs))
            assert overlap[k]["jaccard"] == pytest.approx(sum(len(a & b) / len(a | b) for a, b, _ in pairs) / len(pairs))
