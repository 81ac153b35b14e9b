"""Segments: names, bounds, who falls where, and rates that add up."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.config.evaluation import Evaluation, Segment
from dssm_assets.core.errors import InputError, SchemaError
from dssm_assets.core.evaluation.segments import (
    TIERS,
    ItemPopularity,
    activity_labels,
    choose_category_column,
    edge_labels,
    label_activity,
    label_column,
    label_tenure,
    popularity_from_counts,
    segment_table,
    tier_columns,
    with_hits_of,
)

CITY = Segment(name="town", by="city")


def test_activity_labels_by_hand() -> None:
    assert activity_labels([10, 30, 100]) == ["0", "1-9", "10-29", "30-99", "100+"]
    assert activity_labels([1]) == ["0", "1+"]
    assert activity_labels([2, 3]) == ["0", "1", "2", "3+"]
    assert activity_labels([]) == ["0", "1+"]


def test_users_get_the_activity_whose_range_contains_their_events() -> None:
    events = np.array([0, 1, 9, 10, 29, 30, 99, 100, 5000])
    expected = ["0", "1-9", "1-9", "10-29", "10-29", "30-99", "30-99", "100+", "100+"]
    assert label_activity(events, [10, 30, 100]).to_pylist() == expected


def test_tenure_is_returning_for_users_known_before_the_day() -> None:
    found = label_tenure(pa.array(["a", "b", "c"]), pa.array(["c", "x", "a", "a"]))
    assert found.to_pylist() == ["returning", "first-time", "returning"]
    assert label_tenure(pa.array([1, 2], pa.int64()), pa.array([2], pa.int32())).to_pylist() == ["first-time", "returning"]


def users_cut(values: pa.Array, segment: Segment = CITY) -> list[str]:
    """Labels users u0, u1, ...: their rows come in another order than the users, and the last user has no row."""
    count = len(values)
    table_ids = pa.chunked_array([[f"u{n}" for n in reversed(range(count))]])
    column = pa.chunked_array([values.take(pa.array(list(reversed(range(count)))))])
    return label_column(pa.array([f"u{n}" for n in range(count + 1)]), table_ids, column, segment).to_pylist()


def test_text_columns_are_labelled_by_value_and_missing_values_by_missing() -> None:
    assert users_cut(pa.array(["x", None, "", "y"])) == ["x", "(missing)", "(missing)", "y", "(missing)"]
    assert users_cut(pa.array(["x", "y"]).dictionary_encode()) == ["x", "y", "(missing)"]


def test_numbers_and_booleans_are_labelled_by_their_text() -> None:
    assert users_cut(pa.array([2.0, 2.5, None, float("nan")])) == ["2", "2.5", "(missing)", "(missing)", "(missing)"]
    assert users_cut(pa.array([True, False])) == ["true", "false", "(missing)"]


def test_edges_cut_numbers_into_ranges_closed_on_the_left() -> None:
    segment = Segment(name="age", by="age", edges=[18, 25.5])
    assert edge_labels([18, 25.5]) == ["< 18", "18 to < 25.5", ">= 25.5"]
    assert edge_labels([1_000_000]) == ["< 1000000", ">= 1000000"]
    expected = ["< 18", "18 to < 25.5", "18 to < 25.5", ">= 25.5", "(missing)", "(missing)"]
    assert users_cut(pa.array([17.99, 18, 25, 25.5, None]), segment) == expected
    assert users_cut(pa.array(["17", "18", "old"]), segment) == ["< 18", "18 to < 25.5", "(missing)", "(missing)"]


def test_values_without_text_or_number_are_refused_by_name() -> None:
    with pytest.raises(SchemaError, match="table user_table, column city"):
        users_cut(pa.array([["x"], ["y"]]))
    with pytest.raises(SchemaError, match="table user_table, column born"):
        users_cut(pa.array([0], pa.date32()), Segment(name="a", by="born", edges=[1]))
    with pytest.raises(InputError, match="user_table, column user_id"):
        label_column(pa.array(["1"]), pa.chunked_array([[1]]), pa.chunked_array([["x"]]), CITY)


def settings(*segments: Segment) -> Evaluation:
    return Evaluation(segments=list(segments), bootstrap_samples=500)


DETAIL = pa.table(
    {
        "hits": [1, 1, 0, 3],
        "truth_count": [2, 4, 1, 3],
        "segment_activity": ["0", "10+", "10+", "10+"],
        "segment_tenure": ["first-time", "returning", "returning", "returning"],
        "segment_town": ["10", "9", "(missing)", "10"],
    }
)
ACTIVITY, TENURE = Segment(name="activity", by="activity", edges=[10]), Segment(name="tenure", by="tenure")


def counts_of(table: pa.Table) -> list[tuple[object, ...]]:
    names = ("segment", "value", "users", "hits", "truth_count", "hit_rate")
    return [tuple(row[name] for name in names) for row in table.to_pylist()]


def test_segment_rates_by_hand() -> None:
    table = segment_table(DETAIL, settings(TENURE, ACTIVITY, CITY), seed=1)
    assert counts_of(table) == [
        ("tenure", "first-time", 1, 1, 2, 0.5),
        ("tenure", "returning", 3, 4, 8, 0.5),
        ("activity", "0", 1, 1, 2, 0.5),
        ("activity", "10+", 3, 4, 8, 0.5),
        ("town", "9", 1, 1, 4, 0.25),  # 9 before 10: numbers are no texts
        ("town", "10", 2, 4, 5, 0.8),
        ("town", "(missing)", 1, 0, 1, 0.0),
    ]
    rows = table.to_pylist()
    assert (rows[0]["ci_low"], rows[0]["ci_high"]) == (0.5, 0.5)
    assert rows[1]["ci_low"] < 0.5 < rows[1]["ci_high"]
    assert table.equals(segment_table(DETAIL, settings(TENURE, ACTIVITY, CITY), seed=1))


def test_rare_values_share_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dssm_assets.core.evaluation.segments.MOST_VALUES", 3)
    towns = [*(["big"] * 4), *(["mid"] * 3), "b", "a", "b", "a", "(missing)"]
    count = len(towns)
    detail = pa.table({"hits": [1] * count, "truth_count": [2] * count, "segment_town": towns})
    rows = counts_of(segment_table(detail, settings(CITY), seed=1))
    assert [row[1:3] for row in rows] == [("a", 2), ("big", 4), ("mid", 3), ("(missing)", 1), ("(other)", 2)]


def test_tier_rates_are_over_users_with_truth_in_the_tier() -> None:
    # Two users: 3 to find (head 2 with 1 hit, unseen 1), 1 to find (rest, found).
    by_tier = {"head": ([1, 0], [2, 0]), "next": ([0, 0], [0, 0]), "rest": ([0, 1], [0, 1]), "unseen": ([0, 0], [1, 0])}
    columns: dict[str, list[int]] = {"hits": [1, 1], "truth_count": [3, 1]}
    for tier in TIERS:
        hits, truth = tier_columns(tier)
        columns[hits], columns[truth] = by_tier[tier]
    rows = counts_of(segment_table(pa.table(columns), settings(Segment(name="items", by="item_popularity")), seed=1))
    assert rows == [
        ("items", "head: top 1% of items", 1, 1, 2, 0.5),
        ("items", "rest", 1, 1, 1, 1.0),
        ("items", "unseen in the window", 1, 0, 1, 0.0),
    ]


def test_hits_of_another_scorer_take_the_place_of_the_models() -> None:
    # hit_counts has rows of users with items to find alone, in its own order: u2 finds 2 of 4, u1 none of 2; the head is u2's.
    detail = pa.table({"user_id": ["u1", "u2", "u3"], "hits": [1, 1, 0], "truth_count": [2, 4, 0], "hits_head": [1, 1, 0]})
    detail = detail.append_column("truth_count_head", pa.array([1, 3, 0]))
    of_all = pa.table({"user_id": ["u2", "u1"], "truth_count": [4, 2], "hits_5": [2, 0]})
    of_head = pa.table({"user_id": ["u1", "u2"], "truth_count": [1, 3], "hits_5": [1, 2]})
    found = with_hits_of(detail, {"hits": of_all, "hits_head": of_head}, 5, "2024-01-12")
    assert (found.column("hits").to_pylist(), found.column("hits_head").to_pylist()) == ([0, 2, 0], [1, 2, 0])
    assert found.drop_columns(["hits", "hits_head"]) == detail.drop_columns(["hits", "hits_head"])
    with pytest.raises(
        SchemaError, match=r"hit_counts, hits_head: expected truth_count_head .* materialize hit_counts of 2024-01-12"
    ):
        with_hits_of(detail, {"hits": of_all, "hits_head": of_head.slice(0, 0)}, 5, "2024-01-12")


def test_no_users_give_no_rows_and_other_segments_are_refused() -> None:
    assert segment_table(DETAIL.slice(0, 0), settings(ACTIVITY, CITY), seed=1).num_rows == 0
    assert segment_table(DETAIL, settings(), seed=1).num_rows == 0
    with pytest.raises(SchemaError, match=r"(?s)column hits_head.*column segment_age.*evaluation\.segments changed since"):
        segment_table(DETAIL, settings(Segment(name="age", by="age"), Segment(name="items", by="item_popularity")), seed=1)


HEAD, NEXT, REST, UNSEEN = range(4)


def popularity_of(counts: list[int]) -> ItemPopularity:
    return ItemPopularity(pa.array([f"i{n}" for n in range(len(counts))]), np.array(counts))


def test_tiers_are_one_percent_nine_percent_rest_and_unseen() -> None:
    # 250 items with 250, 249, .. 1 events, and 40 without: 1% of 250 is 2.5, so 3 head; 10% is 25, so 22 come next.
    popularity = popularity_of([*range(1, 251), *([0] * 40)])
    tier = popularity.tier
    assert np.bincount(tier).tolist() == [3, 22, 225, 40]
    assert np.flatnonzero(tier == HEAD).tolist() == [247, 248, 249]
    assert np.flatnonzero(tier == NEXT).tolist() == list(range(225, 247))
    assert (tier[250:] == UNSEEN).all()
    assert popularity.head_frac == pytest.approx((250 + 249 + 248) / (250 * 251 / 2))


def test_without_events_every_item_is_unseen() -> None:
    popularity = popularity_of([0, 0])
    assert popularity.tier.tolist() == [UNSEEN, UNSEEN]
    assert popularity.head_frac == 0.0
    assert popularity.self_information.tolist() == [1.0, 1.0]


def test_self_information_is_minus_log2_of_the_smoothed_fraction() -> None:
    # (3 + 1) / (4 + 4) = 1/2, (1 + 1) / 8 = 1/4, (0 + 1) / 8 = 1/8.
    assert popularity_of([3, 1, 0, 0]).self_information.tolist() == [1.0, 2.0, 3.0, 3.0]


def test_counts_are_matched_by_id_and_missing_counts_are_zero() -> None:
    counted = pa.table({"item_id": ["c", "zz", "a"], "count": [5, 9, 2]})
    assert popularity_from_counts(pa.array(["a", "b", "c"]), counted).count.tolist() == [2, 0, 5]


def test_a_category_has_about_as_many_values_as_each_has_items() -> None:
    place = np.arange(900)  # the root is 30
    columns = {
        "item_id": place,
        "brand": [f"b{k % 3}" for k in place],
        "category": [f"c{k % 40}" for k in place],
        "size": [k % 400 for k in place],
        "price": (place % 30) * 1.5,
        "since": [dt.datetime(2024, 1, 1 + k % 30) for k in place.tolist()],
        "shop": ["one"] * 900,
    }
    items = pa.table(columns)
    assert choose_category_column(items, ["item_id"]) == "category"
    assert choose_category_column(items.drop_columns(["category"]), ["item_id"]) == "brand"
    assert choose_category_column(items.select(["item_id", "price", "since", "shop"]), ["item_id"]) is None
