"""The corpus and its weights."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.config.pipeline import NegativeItems
from dssm_assets.core.errors import DuplicateKeyError, EmptyDayError, SchemaError
from dssm_assets.core.samples.history import build_history
from dssm_assets.core.samples.negatives import (
    count_positives,
    distribution_of,
    find_hard_negatives,
    weigh_items,
    with_distribution,
)
from dssm_assets.core.samples.sample_tables import NEGATIVE_ITEMS
from dssm_assets.core.schema import check_schema
from dssm_assets_tests.core.samples.worlds import bucketize, history_day

SQRT = NegativeItems(alpha=0.5)


def day(items: list[object], kind: pa.DataType) -> pa.Table:
    return pa.table({"item_id": pa.array(items, kind)})


def corpus(ids: list[object]) -> pa.Table:
    return pa.table({"item_id": ids, "feature_date": ["2024-05-01"] * len(ids), "brand": list(range(len(ids)))})


def counts(items: list[object]) -> pa.Table:
    return count_positives([day(items, pa.string() if isinstance(items[0], str) else pa.int64())])


def test_weigh_items_by_hand() -> None:
    # Item 3 has 3 positives: sqrt(3 + 1) = 2. Item 1 has 8: sqrt(9) = 3. Item 2 has none: 1. Item 9 is not in the corpus.
    table = weigh_items(corpus([3, 1, 2]), counts([3] * 3 + [1] * 8 + [9]), SQRT)
    assert table.to_pylist() == [
        {"item_id": 1, "weight": 3.0, "count": 8, "brand": 1},
        {"item_id": 2, "weight": 1.0, "count": 0, "brand": 2},
        {"item_id": 3, "weight": 2.0, "count": 3, "brand": 0},
    ]
    check_schema(NEGATIVE_ITEMS, table.schema)


def test_weigh_items_refuses_broken_corpora() -> None:
    with pytest.raises(EmptyDayError, match="at least one item"):
        weigh_items(corpus([1]).slice(0, 0), counts([1]), SQRT)
    with pytest.raises(DuplicateKeyError, match="1 ids more than once: 1"):
        weigh_items(corpus([1, 1]), counts([1]), SQRT)
    with pytest.raises(SchemaError, match="got string"):
        weigh_items(corpus([1]), counts(["1"]), SQRT)
    with pytest.raises(SchemaError, match=r"(?s)column count.*column weight"):
        weigh_items(corpus([1]).rename_columns(["item_id", "weight", "count"]), counts([1]), SQRT)


@given(days=st.lists(st.lists(st.integers(0, 5)), min_size=1), as_text=st.booleans())
def test_count_positives_over_days_equals_one_count(days: list[list[int]], as_text: bool) -> None:
    ids: list[list[object]] = [[str(item) if as_text else item for item in items] for items in days]
    kind = pa.dictionary(pa.int32(), pa.string()) if as_text else pa.int64()
    table = count_positives(day(items, kind) for items in ids)
    expected = sorted(Counter(item for items in ids for item in items).items())  # type: ignore[type-var]
    assert list(zip(table["item_id"].to_pylist(), table["count"].to_pylist(), strict=True)) == expected
    assert table["count"].type == pa.int64()


def test_count_positives_refuses_two_types_and_nulls() -> None:
    with pytest.raises(SchemaError, match="expected int64, as on the days before, got string"):
        count_positives([day([1], pa.int64()), day(["1"], pa.string())])
    with pytest.raises(SchemaError, match="1 nulls in 2 rows"):
        count_positives([pa.table({"item_id": pa.array(["a", None]).dictionary_encode()})])


@pytest.mark.parametrize("distribution", [NegativeItems(alpha=0.6), NegativeItems()])
def test_a_file_keeps_the_distribution_of_its_weights(tmp_path: Path, distribution: NegativeItems) -> None:
    schema = with_distribution(pa.schema({"weight": pa.float64()}), distribution)
    with pa.OSFile(str(tmp_path / "items.arrow"), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(pa.table([[1.0, 2.0]], schema=schema))
    read = pa.ipc.open_file(pa.memory_map(str(tmp_path / "items.arrow"), "r")).read_all()
    assert distribution_of(read.schema) == distribution
    assert distribution_of(read.schema.remove_metadata()) is None


CORPUS = IdIndex(pa.array([100, 200, 300, 400]))
Event = tuple[int, int, str]


def sample_day(events: list[Event]) -> pa.Table:
    """Returns a day of sample_fg where buying is positive."""
    return pa.table(
        {
            "user_id": pa.array([user for user, _, _ in events], pa.int64()),
            "item_id": pa.array([item for _, item, _ in events], pa.int64()),
            "event": pa.array([event for _, _, event in events], pa.string()),
            "label": pa.array([int(event == "buy") for _, _, event in events], pa.int8()),
        }
    )


def rows(days: list[list[Event]], bought_before: list[tuple[int, int]]) -> list[tuple[int, ...]]:
    before = history_day([(user, [(10, item, None)]) for user, item in bought_before])
    table = find_hard_negatives(
        [sample_day(events) for events in days],
        exposure_events=["expr"],
        item_index=CORPUS,
        history=build_history(lambda _: [before], CORPUS, bucketize),
    )
    return [tuple(row.values()) for row in table.to_pylist()]


EVENTS = st.tuples(st.integers(0, 4), st.sampled_from([100, 200, 300, 400, 999]), st.sampled_from(["expr", "click", "buy"]))


@settings(deadline=None)
@given(
    days=st.lists(st.lists(EVENTS, max_size=12), max_size=4),
    bought_before=st.lists(st.tuples(st.integers(0, 3), st.sampled_from([100, 200, 300, 999])), max_size=6),
)
def test_find_hard_negatives_equals_a_loop_over_pairs(days: list[list[Event]], bought_before: list[tuple[int, int]]) -> None:
    users, items = sorted({user for user, _ in bought_before}), [100, 200, 300, 400]
    bought = {(user, item) for events in days for user, item, event in events if event == "buy"} | set(bought_before)
    expected = []
    for u, user in enumerate(users):
        for i, item in enumerate(items):
            shown = [n for n, events in enumerate(days) if (user, item, "expr") in events]
            if shown and (user, item) not in bought:
                expected.append((u, i, shown[0]))
    assert rows(days, bought_before) == expected
