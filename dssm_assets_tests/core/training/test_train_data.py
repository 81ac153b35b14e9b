"""The border: what is refused, and that memory-mapped tables give the same training as tables in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.config import Model
from dssm_assets.core.errors import DssmError, LeakError, SchemaError
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
        ("item", ITEMS + 2, SchemaError, "table samples, column item:"),
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


def test_missing_columns_of_a_table_are_named_together() -> None:
    tables = world()
    with pytest.raises(SchemaError, match=r"(?s)column hour.*column user_kind"):
        replace(tables, samples=tables.samples.drop_columns(["hour", "user_kind"])).data(SPEC)


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
    names = ("samples", "history", "users", "items")
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
