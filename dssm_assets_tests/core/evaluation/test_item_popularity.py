"""Tiers of items and their self-information, by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.errors import InputError
from dssm_assets.core.evaluation.item_popularity import TIERS, ItemPopularity, Tier, popularity_of

HEAD, NEXT, REST, UNSEEN = range(4)


def of(counts: list[int]) -> ItemPopularity:
    return ItemPopularity(pa.array([f"i{n}" for n in range(len(counts))]), np.array(counts))


def test_the_tiers_have_an_order() -> None:
    assert TIERS == (Tier.HEAD, Tier.NEXT, Tier.REST, Tier.UNSEEN)


def test_one_percent_nine_percent_rest_and_unseen() -> None:
    # 250 items taken 250, 249, .. 1 times, and 40 never: 1% of 250 is 2.5, so 3 head; 10% is 25, so 22 come next.
    popularity = of([*range(1, 251), *([0] * 40)])
    tier = popularity.tier
    assert np.bincount(tier).tolist() == [3, 22, 225, 40]
    assert np.flatnonzero(tier == HEAD).tolist() == [247, 248, 249]
    assert np.flatnonzero(tier == NEXT).tolist() == list(range(225, 247))
    assert (tier[250:] == UNSEEN).all()
    assert popularity.head_frac == pytest.approx((250 + 249 + 248) / (250 * 251 / 2))


def test_a_percentage_that_comes_out_whole_is_not_rounded_up() -> None:
    assert np.bincount(of([1] * 100).tier).tolist() == [1, 9, 90]
    assert np.bincount(of([1] * 101).tier).tolist() == [2, 9, 90]


def test_among_equal_counts_the_corpus_order_decides() -> None:
    assert of([1, 2, 2, 0, 2]).tier.tolist() == [REST, HEAD, REST, UNSEEN, REST]


def test_nothing_taken_is_all_unseen() -> None:
    popularity = of([0, 0])
    assert popularity.tier.tolist() == [UNSEEN, UNSEEN]
    assert popularity.head_frac == 0.0
    assert popularity.self_information.tolist() == [1.0, 1.0]


def test_self_information_is_minus_log2_of_the_smoothed_share() -> None:
    # (3 + 1) / (4 + 4) = 1/2, (1 + 1) / 8 = 1/4, (0 + 1) / 8 = 1/8.
    assert of([3, 1, 0, 0]).self_information.tolist() == [1.0, 2.0, 3.0, 3.0]


def test_counts_are_matched_by_id_and_missing_ones_are_zero() -> None:
    counted = pa.table({"item_id": ["c", "zz", "a"], "count": [5, 9, 2]})
    assert popularity_of(pa.array(["a", "b", "c"]), counted).count.tolist() == [2, 0, 5]


@pytest.mark.parametrize("count", [None, -1])
def test_counts_that_are_none_are_refused(count: int | None) -> None:
    counted = pa.table({"item_id": ["a"], "count": pa.array([count], pa.int64())})
    with pytest.raises(InputError, match="1 that are missing or negative"):
        popularity_of(pa.array(["a"]), counted)
    with pytest.raises(InputError, match="ids of type int64"):
        popularity_of(pa.array([1]), pa.table({"item_id": ["a"], "count": [1]}))
