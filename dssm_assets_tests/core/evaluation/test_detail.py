"""Rows per user equal sets and loops over the lists."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.config.model import Similarity
from dssm_assets.core.evaluation.detail import hit_rate_detail
from dssm_assets.core.evaluation.evaluation_tables import HIT_RATE_DETAIL
from dssm_assets.core.evaluation.scorer import model_scorer, read_corpus
from dssm_assets.core.evaluation.segments import TIERS, Cuts, label_activity, tier_columns
from dssm_assets.core.schema import check_no_nulls, check_schema
from dssm_assets_tests.core.evaluation.worlds import truth_of

CORPUS = ["a", "b", "c", "d"]


def test_detail_by_hand() -> None:
    truth = truth_of([("u", "d"), ("u", "b"), ("u", "zz"), ("n", "a")], [("u", "b"), ("v", "a")], CORPUS)
    lists = np.array([[-1, -1, -1], [3, 0, 1]])  # n has no vector
    scores = np.array([[-np.inf] * 3, [0.5, 0.25, 0.125]], np.float32)
    cuts = Cuts({"activity": pa.array(["0", "10-29"]), "town": pa.array(["x", "y"])})
    table = hit_rate_detail(lists, scores, truth, cuts, item_ids=pa.array(CORPUS))
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
    truth = truth_of(day, window, CORPUS)
    listed = st.lists(st.integers(0, 3), max_size=4, unique=True)
    lists = np.array([(data.draw(listed) + [-1] * 5)[:5] for _ in range(truth.num_users)])
    scores = np.arange(lists.size, dtype=np.float32).reshape(lists.shape)
    tier = np.array(data.draw(st.lists(st.integers(0, 3), min_size=4, max_size=4)))
    table = hit_rate_detail(lists, scores, truth, Cuts({}, tier), item_ids=pa.array(CORPUS))
    for row, own, values in zip(table.to_pylist(), lists.tolist(), scores.tolist(), strict=True):
        kept = list(dict.fromkeys(CORPUS[index] for index in own if index >= 0))
        wanted = {item for user, item in day if user == row["user_id"]}
        assert row["topk_ids"] == kept
        assert row["topk_scores"] == [values[own.index(CORPUS.index(item))] for item in kept]
        assert row["hit_ids"] == [item for item in kept if item in wanted]
        assert row["bad_ids"] == [item for item in kept if item not in wanted]
        assert (row["hits"], row["truth_count"]) == (len(set(kept) & wanted), len(wanted))
        for place, name in enumerate(TIERS):
            inside = {item for item in wanted if (tier[CORPUS.index(item)] if item in CORPUS else 3) == place}
            hits, truth_count = (row[column] for column in tier_columns(name))
            assert (hits, truth_count) == (len(set(kept) & inside), len(inside))


def test_detail_has_every_user_and_an_empty_list_without_a_vector() -> None:
    rng = np.random.default_rng(2)
    users = [f"u{i}" for i in range(9)]
    truth = truth_of([(user, CORPUS[i % 4]) for i, user in enumerate(users)], [("u1", "b")], CORPUS)

    def vectors(ids: list[str], side: str) -> pa.Table:
        values = pa.array(rng.normal(size=len(ids) * 3).astype(np.float32))
        return pa.table({f"{side}_id": ids, f"{side}_tower_emb": pa.FixedSizeListArray.from_arrays(values, 3)})

    scorer = model_scorer(*read_corpus(vectors(CORPUS, "item"), Similarity.COSINE), vectors(users[:7], "user"), truth.user_ids)
    cuts = Cuts({"activity": label_activity(np.arange(9), [2, 5])}, np.array([0, 1, 2, 3]))
    whole = hit_rate_detail(*scorer.top_k(np.arange(9), 3), truth, cuts, item_ids=scorer.item_ids)
    assert whole.column("segment_activity").to_pylist() == ["0", "1", "2-4", "2-4", "2-4", "5+", "5+", "5+", "5+"]
    assert whole.column("topk_ids").to_pylist()[7:] == [[], []]
