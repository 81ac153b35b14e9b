"""The border: what is refused, and that memory-mapped tables give the same training as tables in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.errors import DssmError, LeakError, SchemaError
from dssm_assets.core.model_config import Model
from dssm_assets.core.models.tower_feature import Side, TowerFeature
from dssm_assets.core.models.tower_input import TowerInput
from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets_tests.core.training.worlds import EVENTS, FEATURES, ITEMS, SMALL_MODEL, World, world

SPEC = tower_spec(FEATURES, Model(**SMALL_MODEL))


def _with(table: pa.Table, column: str, row: int, value: Any) -> pa.Table:
    values = table.column(column).to_pylist()
    values[row] = value
    place = table.column_names.index(column)
    return table.set_column(place, column, pa.array(values, table.schema.field(column).type))


@pytest.mark.parametrize(
    ("column", "value", "error", "text"),
    [
        ("item_index", -1, SchemaError, r"column item_index: expected 0 \.\. 11, got -1"),
        ("item_index", ITEMS, SchemaError, r"column item_index.*12"),
        ("user_index", 10, SchemaError, r"column user_index: expected -1 \.\. 9"),
        ("weight", 0.0, SchemaError, "column weight"),
        ("user_row", 11, SchemaError, r"table samples, column user_row: expected 0 \.\. 10, got 1 \.\. 11"),
        ("user_row", -1, SchemaError, r"table samples, column user_row: expected 0 \.\. 10, got -1"),
        ("item_row", ITEMS + 1, SchemaError, r"table samples, column item_row: expected 0 \.\. 12"),
        ("item_row", -1, SchemaError, r"table samples, column item_row.*-1"),
        ("hour", 25, SchemaError, "table samples, column hour"),
        ("history_end", 81, SchemaError, "column history_end: expected 0 <= start"),
        ("history_end", EVENTS + 1, SchemaError, "reach into the next user's"),
        ("history_end", 4, LeakError, "strictly before"),
    ],
)
def test_bad_samples_are_refused(column: str, value: Any, error: type[DssmError], text: str) -> None:
    tables = world()
    with pytest.raises(error, match=text):
        replace(tables, samples=_with(tables.samples, column, 3, value)).data(SPEC)


@pytest.mark.parametrize(
    ("table", "column", "value", "text"),
    [
        ("user_rows", "user_kind", 4, r"table user_rows, column user_kind: expected indices 0 \.\. 3"),
        ("user_rows", "interests", [6], r"table user_rows, column interests: expected indices 0 \.\. 5"),
        ("item_rows", "item", ITEMS + 2, "table item_rows, column item:"),
        ("items", "item", ITEMS + 2, "table items, column item:"),
    ],
)
def test_bad_feature_rows_are_refused(table: str, column: str, value: Any, text: str) -> None:
    tables = world()
    with pytest.raises(SchemaError, match=text):
        replace(tables, **{table: _with(getattr(tables, table), column, 3, value)}).data(SPEC)


def test_missing_columns_of_a_table_are_named_together() -> None:
    tables = world()
    for table, names in (
        ("samples", ["hour", "pages"]),
        ("samples", ["item_row", "user_row"]),
        ("item_rows", ["item", "tags"]),
    ):
        with pytest.raises(SchemaError, match=rf"(?s)table {table}, column {names[0]}.*table {table}, column {names[1]}"):
            replace(tables, **{table: getattr(tables, table).drop_columns(names)}).data(SPEC)


def _read(inputs: TowerInput, features: Sequence[TowerFeature]) -> list[dict[str, Any]]:
    """Returns what a tower input says, row by row: name -> index or list of indices."""
    bags = [[bag.values[low:high].tolist() for low, high in pairwise(bag.offsets.tolist())] for bag in inputs.bags]
    rows = []
    for row, singles in enumerate(inputs.singles.tolist()):
        values = iter(singles), iter(bag[row] for bag in bags)
        rows.append({feature.name: next(values[feature.is_multi]) for feature in features})
    return rows


@pytest.mark.parametrize("order", [FEATURES, FEATURES[::-1], FEATURES[2:] + FEATURES[:2]])
def test_a_tower_reads_the_features_that_a_sample_points_to_in_the_order_of_the_specification(
    order: tuple[TowerFeature, ...],
) -> None:
    """Beside its row numbers every sample of the world holds the features themselves: the wide rows are the reference."""
    tables, spec = world(), tower_spec(order, Model(**SMALL_MODEL))
    rows, data = np.random.default_rng(0).permutation(80)[:33], tables.data(spec)
    wide = tables.samples.take(pa.array(rows))
    users, items = spec.of(Side.USER, Side.CONTEXT), spec.of(Side.ITEM)
    assert _read(data.read_user_side(rows, data.read_keys(rows)), users) == wide.select([f.name for f in users]).to_pylist()
    assert _read(data.read_sample_items(rows), items) == wide.select([f.name for f in items]).to_pylist()


def test_a_sample_of_unknown_user_and_item_has_only_the_features_of_its_request() -> None:
    tables = world()
    for column in ("user_row", "item_row"):
        tables = replace(tables, samples=_with(tables.samples, column, 5, 0))
    data, rows = tables.data(SPEC), np.array([5])
    (user,) = _read(data.read_user_side(rows, data.read_keys(rows)), SPEC.of(Side.USER, Side.CONTEXT))
    request = tables.samples.select(["hour", "pages"]).slice(5, 1).to_pylist()
    assert user == {"user_kind": 0, "interests": [], **request[0]}
    assert _read(data.read_sample_items(rows), SPEC.of(Side.ITEM)) == [{"item": 0, "tags": []}]


def test_towers_without_user_features_need_no_rows_of_users() -> None:
    tables, spec = world(), tower_spec([f for f in FEATURES if f.side is not Side.USER], Model(**SMALL_MODEL))
    samples = tables.samples.set_column(
        tables.samples.column_names.index("user_row"), "user_row", pa.array(np.zeros(80, np.int32))
    )
    data = replace(tables, samples=samples, user_rows=pa.table({})).data(spec)
    rows = np.array([7, 2])
    request = tables.samples.take(pa.array(rows)).select(["hour", "pages"]).to_pylist()
    assert _read(data.read_user_side(rows, data.read_keys(rows)), spec.of(Side.CONTEXT)) == request


def test_towers_without_context_read_users_alone() -> None:
    tables, spec = world(), tower_spec([f for f in FEATURES if f.side is not Side.CONTEXT], Model(**SMALL_MODEL))
    data, rows = tables.data(spec), np.array([7, 2])
    wide = tables.samples.take(pa.array(rows)).select(["user_kind", "interests"]).to_pylist()
    assert _read(data.read_user_side(rows, data.read_keys(rows)), spec.of(Side.USER)) == wide


def test_no_samples_is_refused() -> None:
    tables = world()
    with pytest.raises(SchemaError, match="at least one sample"):
        replace(tables, samples=tables.samples.slice(0, 0)).data(SPEC)


def test_item_share_is_the_frequency_among_samples() -> None:
    tables = world()
    items = tables.samples.column("item_index").to_pylist()
    assert tables.data(SPEC).item_share == pytest.approx([items.count(i) / len(items) for i in range(ITEMS)])


def test_user_without_history_has_none_and_knows_nothing() -> None:
    tables = world()
    data = replace(tables, samples=_with(tables.samples, "user_index", 5, -1)).data(SPEC)
    rows = np.array([5, 6])
    inputs = data.read_user_side(rows, data.read_keys(rows))
    assert inputs.is_empty_history is not None
    assert inputs.is_empty_history.tolist() == [1.0, 0.0]
    known = data.known_items(np.array([-1, 1]))
    assert known.lengths.tolist() == [0, EVENTS]
    assert known.items.tolist() == tables.history.column("item_index").to_pylist()[EVENTS : 2 * EVENTS]


def _mapped(table: pa.Table, path: Path, max_chunksize: int) -> pa.Table:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=max_chunksize)
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


@pytest.mark.parametrize("max_chunksize", [7, 1000])
def test_memory_mapped_tables_in_any_chunks_read_the_same(tmp_path: Path, max_chunksize: int) -> None:
    tables = world()
    names = [field.name for field in fields(World)]
    mapped = World(**{n: _mapped(getattr(tables, n), tmp_path / n, max_chunksize) for n in names})
    rows = np.random.default_rng(0).permutation(80)[:33]
    ours, theirs = mapped.data(SPEC), tables.data(SPEC)
    for a, b in (
        (ours.read_user_side(rows, ours.read_keys(rows)), theirs.read_user_side(rows, theirs.read_keys(rows))),
        (ours.read_sample_items(rows), theirs.read_sample_items(rows)),
        (ours.read_items(rows % ITEMS), theirs.read_items(rows % ITEMS)),
    ):
        assert a.singles.tolist() == b.singles.tolist()
        for mine, other in zip(a.bags, b.bags, strict=True):
            assert (mine.values.tolist(), mine.offsets.tolist()) == (other.values.tolist(), other.offsets.tolist())
            assert mine.weights.tolist() == other.weights.tolist()
