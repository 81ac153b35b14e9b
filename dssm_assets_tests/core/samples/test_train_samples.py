"""Training rows: indices by hand, what is dropped, and that no sample sees itself."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.config.model import History
from dssm_assets.core.config.pipeline import NegativeItems
from dssm_assets.core.errors import SchemaError
from dssm_assets.core.samples.embedding_index import IndexedFeatures
from dssm_assets.core.samples.history import HistoryCsr, build_history
from dssm_assets.core.samples.negatives import distribution_of
from dssm_assets.core.samples.sample import SampleWeights
from dssm_assets.core.samples.train_samples import KeptRows, discretise_day, discretise_items, discretise_rows
from dssm_assets_tests.core.samples.worlds import bucketize, history_day

CORPUS = IdIndex(pa.array([100, 200, 300]))
# User 1: item 100 at 10, a basket of 100 and 200 at 20, 300 at 31. User 2: item 200 at 40.
DAYS = [history_day([(1, [(10, 100, 1), (20, 100, 1), (20, 200, 2)])]), history_day([(2, [(40, 200, 2)]), (1, [(31, 300, 3)])])]
WORLD = build_history(lambda _: DAYS, CORPUS, bucketize)


def positives(rows: list[tuple[object, object, int]], id_type: pa.DataType | None = None) -> pa.Table:
    return pa.table(
        {
            "user_id": pa.array([user for user, _, _ in rows], id_type or pa.int64()),
            "item_id": pa.array([item for _, item, _ in rows], id_type or pa.int64()),
            "event_time_ms": pa.array([time for _, _, time in rows], pa.int64()),
            "age": pa.array([None if time == 20 else time for _, _, time in rows], pa.int64()),
            "tags": pa.array([[time, time + 1] if time != 20 else [] for _, _, time in rows], pa.list_(pa.int64())),
        }
    )


def indexed(*names: str, weighted: Collection[str] = ()) -> IndexedFeatures:
    return IndexedFeatures(bucketize, names, weighted)


def run(table: pa.Table, cutoff: History = History.EVENT, history: HistoryCsr = WORLD, **changes: object) -> pa.RecordBatch:
    """Returns the day's rows; row r of the day has its user's features in row 10 + r and its item's in row 20 + r."""
    places = np.arange(table.num_rows, dtype=np.int32)
    arguments: dict[str, object] = {
        "day": 3,
        "day_start_ms": 30,
        "feature_rows": {"user_row": 10 + places, "item_row": 20 + places},
        "features": indexed("age", "tags"),
        "item_index": CORPUS,
        "weights": SampleWeights(),
        **changes,
    }
    return discretise_day(table, history=history, cutoff=cutoff, **arguments)  # type: ignore[arg-type]


ROWS = positives([(1, 300, 31), (2, 200, 40), (2, 999, 41), (7, 100, 42), (1, 100, 50)])


def test_discretise_day_by_hand() -> None:
    table = run(ROWS)
    # The third row is left out: its item 999 is not in the corpus.
    assert table.to_pydict() == {
        "item_index": [2, 1, 0, 0],
        "user_index": [0, 1, -1, 0],
        "history_end": [3, 4, 0, 4],  # user 1 owns rows 0-3, user 2 row 4; user 7 has no history
        "event_time_ms": [31, 40, 42, 50],
        "weight": [1.0, 1.0, 1.0, 1.0],
        "day": [3, 3, 3, 3],
        "user_row": [10, 11, 13, 14],
        "item_row": [20, 21, 23, 24],
        "age": [32, 41, 43, 51],
        "tags": [[32, 33], [41, 42], [43, 44], [51, 52]],
    }
    assert [str(field.type) for field in table.schema] == [
        *("int32", "int32", "int64", "int64", "float", *["int32"] * 4, "list<item: int32>")
    ]


def test_an_empty_day_and_a_day_of_unknown_items_keep_the_schema() -> None:
    schema = run(ROWS).schema
    for rows in (ROWS.slice(0, 0), positives([(1, 999, 31)])):
        table = run(rows)
        assert table.num_rows == 0
        assert table.schema.equals(schema, check_metadata=True)


def test_broken_inputs_are_refused() -> None:
    with pytest.raises(SchemaError, match=r"(?s)2 faults.*column brand.*column size"):
        run(ROWS, features=indexed("brand", "size"))
    with pytest.raises(SchemaError, match=r"samples\.arrow, column day: expected one source"):
        run(ROWS.rename_columns(["user_id", "item_id", "event_time_ms", "day", "tags"]), features=indexed("day"))
    with pytest.raises(SchemaError, match="expected int64, the type of ids, got string"):
        run(ROWS.set_column(1, "item_id", ROWS["item_id"].cast(pa.string())))


DISTRIBUTION = NegativeItems(alpha=0.5)


def test_discretise_items_follows_the_corpus() -> None:
    corpus = pa.table({"item_id": [1, 2], "weight": [2.0, 0.5], "count": [3, 0], "brand": [6, None], "tags": [[1], []]})
    table = discretise_items(corpus, indexed("tags", "brand"), DISTRIBUTION)
    assert distribution_of(table.schema) == DISTRIBUTION
    assert table.to_pydict() == {"weight": [2.0, 0.5], "tags": [[2], []], "brand": [7, 0]}
    with pytest.raises(SchemaError, match="column size"):
        discretise_items(corpus, indexed("size"), DISTRIBUTION)


FEATURES = pa.table(
    {
        "user_id": [1, 2],
        "age": pa.array([30, None], pa.int64()),
        "tags": pa.array([[7], None], pa.list_(pa.int64())),
        "tags__weights": pa.array([[0.5], None], pa.list_(pa.float32())),
    }
)


def test_discretise_rows_puts_the_unknown_row_first() -> None:
    features = indexed("tags", "age", weighted={"tags"})
    given = {"features": features, "file": "user_rows.arrow", "where": "table user_features_fg, day 2024-01-01"}
    rows = discretise_rows(FEATURES, **given)
    assert rows.to_pydict() == {"tags": [[8], []], "tags__weights": [[0.5], []], "age": [31, 0]}
    first = discretise_rows(FEATURES, is_first=True, **given)
    assert first.to_pydict() == {"tags": [[], [8], []], "tags__weights": [[], [0.5], []], "age": [0, 31, 0]}
    assert first.schema.equals(rows.schema, check_metadata=True)
    alone = discretise_rows(FEATURES.slice(0, 0), is_first=True, **given)
    assert alone.to_pydict() == {"tags": [[]], "tags__weights": [[]], "age": [0]}
    with pytest.raises(SchemaError, match="table user_features_fg, day 2024-01-01, column age"):
        discretise_rows(FEATURES.drop_columns(["age"]), **given)


def test_weights_go_with_the_rows_of_samples_and_items() -> None:
    weights = pa.array([[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]], pa.list_(pa.float32()))
    table = run(ROWS.append_column("tags__weights", weights), features=indexed("tags", weighted={"tags"}))
    # The third row is left out.
    assert table["tags__weights"].to_pylist() == [[1, 2], [3, 4], [7, 8], [9, 10]]
    assert table.schema.names[-2:] == ["tags", "tags__weights"]
    corpus = pa.table({"item_id": [1, 2], "weight": [2.0, 0.5], "tags": [[1], []], "tags__weights": [[0.25], []]})
    corpus = corpus.set_column(3, "tags__weights", corpus["tags__weights"].cast(pa.list_(pa.float32())))
    items = discretise_items(corpus, indexed("tags", weighted={"tags"}), DISTRIBUTION)
    assert items.to_pydict() == {"weight": [2.0, 0.5], "tags": [[2], []], "tags__weights": [[0.25], []]}
    with pytest.raises(SchemaError, match="table positive_sample, column tags__weights: expected the column to exist"):
        run(ROWS, features=indexed("tags", weighted={"tags"}))


@settings(deadline=None)
@given(
    events=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from([100, 200, 300, 999]), st.integers(0, 8)), min_size=1, max_size=30
    ),
    day_start_ms=st.integers(0, 8),
    cutoff=st.sampled_from(History),
)
def test_no_sample_sees_its_own_event_or_anything_later(
    events: list[tuple[int, int, int]], day_start_ms: int, cutoff: History
) -> None:
    day = history_day([(user, [(time, item, None)]) for user, item, time in events])
    history = build_history(lambda _: [day], CORPUS, bucketize)
    table = run(positives(list(events)), cutoff, history, day_start_ms=day_start_ms, features=indexed())
    kept = [event for event in events if event[1] != 999]
    for (user, _, time), row in zip(kept, table.to_pylist(), strict=True):
        seen = history.event_time_ms[history.starts[row["user_index"]] : row["history_end"]].tolist()
        # For `leave_one_out` the written end is that of `event`.
        limit = min(time, day_start_ms) if cutoff is History.DAY else time
        assert seen == sorted(other for who, _, other in events if who == user and other < limit)


def rows(*values: int | None) -> pa.Array:
    return pa.array(values, pa.int32())


def select(kept: KeptRows, table: str, *parts: list[int]) -> list[int]:
    batches = [pa.record_batch({"x": pa.array(part, pa.int64())}) for part in parts]
    return [value for batch in kept.select(table, batches) for value in batch.column("x").to_pylist()]


@given(
    sizes=st.lists(st.integers(0, 20), min_size=1, max_size=3),
    days=st.lists(st.tuples(st.integers(0, 2), st.lists(st.none() | st.integers(0, 19), max_size=6)), max_size=6),
)
def test_kept_rows_equal_a_loop_over_tables(sizes: list[int], days: list[tuple[int, list[int | None]]]) -> None:
    used = [(f"{table % len(sizes)}", sizes[table % len(sizes)], found) for table, found in days]
    used = [(table, size, [row if row is None or row < size else None for row in found]) for table, size, found in used]
    kept = KeptRows()
    for table, size, found in used:
        kept.mark(table, size, rows(*found))
    order = list(dict.fromkeys(table for table, _, _ in used))
    pointed = {(table, row) for table, _, found in used for row in found if row is not None}
    stack: list[tuple[str, int] | None] = [
        None,
        *((table, row) for table in order for row in range(20) if (table, row) in pointed),
    ]
    for table, size, found in used:
        assert [stack[place] for place in kept.find(table, rows(*found))] == [
            row if row is None else (table, row) for row in found
        ]
        assert select(kept, table, list(range(size))) == [row for row in range(size) if (table, row) in pointed]
    assert all(kept.find(table, rows(*found)).dtype == np.int32 for table, _, found in used)


LISTS, WEIGHTS = pa.list_(pa.int64()), pa.list_(pa.float32())
WEIGHTED = IndexedFeatures(bucketize, ["b", "a"], {"b"})
FITTING = [[0.5, 2], None, [-3]]


def weighted(weights: object, kind: pa.DataType = WEIGHTS) -> pa.Table:
    return pa.table({"a": [4, 4, 4], "b": pa.array([[1, None], None, [7]], LISTS), "b__weights": pa.array(weights, kind)})


@pytest.mark.parametrize("first", [0, 1])
def test_weights_follow_their_feature_and_null_lists_become_empty(first: int) -> None:
    assert WEIGHTED.columns == ["b", "b__weights", "a"]
    table = weighted(FITTING).slice(first)
    found = WEIGHTED.to_indices(pa.concat_tables([table, table]), "table t")
    assert list(found) == WEIGHTED.columns
    assert found["b"].to_pylist() == [[2, 0], [], [8]][first:] * 2
    assert (found["b__weights"].type, found["b__weights"].to_pylist()) == (WEIGHTS, [[0.5, 2.0], [], [-3.0]][first:] * 2)
    large = WEIGHTED.to_indices(weighted(FITTING, pa.large_list(pa.float32())), "table t")
    assert large["b__weights"].equals(WEIGHTED.to_indices(weighted(FITTING), "table t")["b__weights"])
