"""The generator: sides, encodings, features of features, sequences, and the distribution batch = row by row."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.arrays.hashing import hash_texts
from dssm_assets.core.errors import SchemaError
from dssm_assets.core.features import generator as module
from dssm_assets.core.features.generator import FeatureGenerator
from dssm_assets_tests.core.features import strategies as cases

ID = {"feature_type": "id_feature", "value_dim": 1}
FG: dict[str, Any] = {
    "features": [
        {**ID, "feature_name": "item", "expression": "item:item_id"},
        {**ID, "feature_name": "city", "expression": "user:city"},
        {**ID, "feature_name": "tags", "expression": "user:tags", "value_dim": 0},
        {"feature_type": "raw_feature", "feature_name": "age", "expression": "user:age", "default_value": ""},
        {"feature_type": "lookup_feature", "feature_name": "likes", "map": "user:tags", "key": "const:a"},
        {**ID, "feature_name": "likes_text", "expression": "feature:likes"},
        {**ID, "feature_name": "tags_again", "expression": "feature:tags", "value_dim": 1 - 1},
        {**ID, "feature_name": "hour", "expression": "context:hour"},
        {
            "feature_type": "sequence_feature",
            "sequence_name": "past",
            "features": [
                {**ID, "feature_name": "item", "expression": "user:item_ids", "embedding_name": "item"},
                {**ID, "feature_name": "kind", "expression": "user:kinds"},
            ],
        },
    ]
}
GENERATOR = FeatureGenerator.from_fg_json(FG)
USERS = pa.schema([("city", pa.string()), ("tags", pa.list_(pa.string())), ("age", pa.float64())])
user_rows = st.lists(
    st.fixed_dictionaries(
        {"city": cases.texts, "tags": st.one_of(st.none(), st.lists(cases.texts, max_size=4)), "age": cases.floats}
    ),
    max_size=8,
)


def h(text: str) -> int:
    return int(hash_texts([text])[0])


def test_only_the_columns_of_a_side() -> None:
    users = pa.table({"city": ["x", ""], "tags": [["a:1", "b"], None], "age": [3, None]})
    result = GENERATOR.encode(users, side="user")
    assert result.schema.names == ["city", "tags", "age", "likes", "likes_text", "tags_again"]
    assert result.schema.types == [
        pa.int64(),
        pa.list_(pa.int64()),
        pa.float32(),
        pa.float32(),
        pa.int64(),
        pa.list_(pa.int64()),
    ]
    assert result.to_pydict() == {
        "city": [h("x"), None],
        "tags": [[h("a:1"), h("b")], []],
        "age": [3, None],
        "likes": [1, 0],
        "likes_text": [h("1"), h("0")],
        "tags_again": [[h("a:1"), h("b")], []],
    }
    assert GENERATOR.encode(pa.table({"hour": [7]}), side="context").to_pydict() == {"hour": [h("7")]}


@given(user_rows)
def test_table_equals_its_rows_and_its_batches(rows: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(rows, schema=USERS)
    whole = GENERATOR.encode(table, side="user")
    single = [GENERATOR.encode(table.slice(i, 1), side="user") for i in range(table.num_rows)]
    assert pa.concat_tables([whole.slice(0, 0), *single]).equals(whole)
    if rows:
        assert GENERATOR.encode(table.to_batches()[0], side="user").equals(whole)


@given(st.lists(st.one_of(st.none(), st.lists(st.tuples(st.integers(), cases.texts), max_size=4)), max_size=8))
def test_sequence_keeps_lengths_and_equals_its_rows(rows: list[list[tuple[int, str | None]] | None]) -> None:
    ids = [None if row is None else [str(pair[0]) for pair in row] for row in rows]
    kinds = [None if row is None else [pair[1] for pair in row] for row in rows]
    table = pa.table({"item_ids": pa.array(ids, pa.list_(pa.string())), "kinds": pa.array(kinds, pa.list_(pa.string()))})
    whole = GENERATOR.encode(table, side="sequence")
    single = [GENERATOR.encode(table.slice(i, 1), side="sequence") for i in range(table.num_rows)]
    assert pa.concat_tables([whole.slice(0, 0), *single]).equals(whole)
    assert whole.column("past__kind").to_pylist() == [
        None if row is None else [h(text) if text else None for text in row] for row in kinds
    ]


def test_slices_do_not_change_results(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table(
        {"city": ["a", "b", None, "a", "c"], "tags": ["a:1", "", None, "a\x1db", "c"], "age": ["1", "x", "", "2", None]}
    )
    whole = GENERATOR.encode(table, side="user")
    monkeypatch.setattr(module, "_SLICE_ROWS", 2)
    assert GENERATOR.encode(table, side="user").combine_chunks().equals(whole.combine_chunks())


def test_empty_table_gives_the_same_columns() -> None:
    empty = GENERATOR.encode(USERS.empty_table(), side="user")
    assert empty.num_rows == 0
    assert empty.schema == GENERATOR.encode(pa.table({"city": ["x"], "tags": ["a"], "age": [1]}), side="user").schema


def test_side_without_features_keeps_the_row_count() -> None:
    bare = FeatureGenerator.from_fg_json({"features": []})
    table = pa.table({"x": [1, 2]})
    assert (bare.encode(table).num_columns, bare.encode(table).num_rows) == (0, 2)
    assert (bare.encode(table, side="sequence").num_columns, bare.encode(table, side="sequence").num_rows) == (0, 2)


def test_missing_columns_are_all_named_with_their_features() -> None:
    with pytest.raises(SchemaError) as caught:
        GENERATOR.encode(pa.table({"age": [1]}), side="user")
    assert [fault.where for fault in caught.value.faults] == ["input column city", "input column tags"]
    assert "likes, likes_text, tags_again" in str(caught.value)


def test_wrong_types_are_all_named() -> None:
    table = pa.table({"city": [["x"]], "tags": ["a"], "age": [[1]]})
    with pytest.raises(SchemaError) as caught:
        GENERATOR.encode(table, side="user")
    assert [fault.where for fault in caught.value.faults] == ["feature age, input user:age", "feature city, input user:city"]
