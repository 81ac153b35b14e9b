"""Tables: equal rows, equal bytes; contracts at the border; nothing visible of a failed write."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.schema import ColumnSpec, TableSpec
from dssm_assets.storage.tables import ROW_GROUP_ROWS, TableStore, part_name
from dssm_assets_tests.storage.stores import (
    DS,
    NOTES,
    SCHEMA,
    files_of,
    memory_store,
    notes,
    parquet_bytes,
    stores,
    verify,
)


@pytest.fixture(params=["local", "memory"])
def tables(request, tmp_path):
    return TableStore(stores(tmp_path)[request.param])


rows = st.tuples(st.text(max_size=3), st.integers(min_value=-(2**63), max_value=2**63 - 1), st.none() | st.text(max_size=3))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), listed=st.lists(rows, max_size=30))
def test_equal_rows_give_equal_bytes_whatever_the_batches(data, listed):
    table = notes(*listed)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(listed)), max_size=5), label="cuts"))
    ends = [*cuts, len(listed)]
    starts = [0, *cuts]
    batches = [
        batch
        for start, end in zip(starts, ends, strict=True)
        for batch in table.slice(start, end - start).combine_chunks().to_batches()
    ]
    tables = TableStore(memory_store())
    manifest = tables.write(NOTES, DS, batches, schema=SCHEMA)
    assert tables.partitions.fs.cat_file(tables.paths([manifest])[0]) == parquet_bytes(TableStore(memory_store()), table)
    assert tables.read(manifest).equals(table)
    assert manifest.rows == len(listed)


@pytest.mark.parametrize("step", [1_000, 131_071, 131_072, 200_001])
def test_files_have_the_same_rows_for_every_batch_size(step):
    count = 2 * ROW_GROUP_ROWS + 5
    table = pa.table({"user_id": pa.array(range(count)), "at": pa.array(range(count)), "note": pa.nulls(count, pa.string())})
    whole = TableStore(memory_store())
    expected = whole.write(NOTES, DS, table)
    cut = TableStore(memory_store())
    batches = (table.slice(start, step).combine_chunks().to_batches()[0] for start in range(0, count, step))
    manifest = cut.write(NOTES, DS, batches, schema=table.schema)
    assert manifest.digest == expected.digest
    assert [file.rows for file in manifest.files] == [131_072, 131_072, 5]


def test_read_and_batches_return_the_written_rows_in_order(tables):
    table = notes(("z", 3, None), ("a", 1, "x"), ("z", 2, None))
    manifest = tables.write(NOTES, DS, table, inputs={"sample/2024-01-01": "ab"}, facts={"seed": 1})
    assert tables.read(manifest).equals(table)
    assert tables.read(manifest, ["at"]).to_pydict() == {"at": [3, 1, 2]}
    assert pa.Table.from_batches(tables.batches(manifest, ["user_id"])).to_pydict() == {"user_id": ["z", "a", "z"]}
    assert (dict(manifest.inputs), dict(manifest.facts)) == ({"sample/2024-01-01": "ab"}, {"seed": 1})


def test_as_dictionaries_keeps_text_dictionary_encoded(tables):
    table = notes(("z", 3, None), ("a", 1, "x"), ("z", 2, "x")).append_column("bag", pa.array([["q"], [], ["q", "r"]]))
    manifest = tables.write(NOTES, DS, table)
    found = tables.read(manifest, as_dictionaries=["user_id", "at", "bag", "no such column"])
    assert found.column("user_id").chunk(0).dictionary.to_pylist() == ["z", "a"]
    assert found.to_pylist() == table.to_pylist()
    assert [field.type for field in found.schema][1:] == [pa.int64(), pa.string(), table.schema.field("bag").type]
    assert tables.read(manifest, ["user_id"], as_dictionaries=["user_id"]).to_pydict() == {"user_id": ["z", "a", "z"]}
    assert tables.read(manifest).equals(table)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(listed=st.lists(rows, max_size=20), cut=st.integers(0, 20))
def test_write_decodes_dictionary_encoded_text(listed, cut):
    table = notes(*listed)
    encoded = pa.concat_tables([coded(table.slice(0, cut)), coded(table.slice(cut))])
    expected = parquet_bytes(TableStore(memory_store()), table)
    assert parquet_bytes(TableStore(memory_store()), encoded) == expected
    tables = TableStore(memory_store())
    manifest = tables.write(NOTES, DS, encoded.to_batches(), schema=encoded.schema)
    assert tables.partitions.fs.cat_file(tables.paths([manifest])[0]) == expected
    assert [column.type for column in manifest.columns] == ["string", "int64", "string"]


def test_write_decodes_dictionaries_within_lists(tables):
    coded = pa.array(["gone", "kept"]).dictionary_encode()
    columns = {
        "list": pa.ListArray.from_arrays([0, 1, 2], coded),
        "large": pa.LargeListArray.from_arrays([0, 1, 2], coded),
    }
    table = notes(("z", 3, None), ("a", 1, "x"))
    for name, column in columns.items():
        table = table.append_column(name, column)
    manifest = tables.write(NOTES, DS, table.slice(1))
    assert tables.read(manifest).to_pylist() == table.slice(1).to_pylist()
    assert "dictionary" not in str(tables.read_schema(manifest))


def coded(table):
    for place in (0, 2):
        table = table.set_column(place, table.column_names[place], table.column(place).dictionary_encode())
    return table


def test_columns_are_recorded_with_type_and_meaning(tables):
    table = notes(("a", 1, None)).append_column("buy_count", pa.array([2])).append_column("city", pa.array(["x"]))
    manifest = tables.write(NOTES, DS, table)
    assert [(column.name, column.type, column.description) for column in manifest.columns] == [
        ("user_id", "string", "Who."),
        ("at", "int64", "When."),
        ("note", "string", "Remark; may be missing."),
        ("buy_count", "int64", "A count."),
        ("city", "string", "Anything else."),
    ]


def test_an_empty_table_keeps_its_schema(tables):
    manifest = tables.write(NOTES, DS, iter(()), schema=SCHEMA)
    assert manifest.rows == 0
    assert tables.read(manifest).schema.equals(SCHEMA)


def test_write_names_every_required_column_with_nulls(tables):
    with pytest.raises(SchemaError) as caught:
        tables.write(NOTES, DS, notes((None, 1, None), (None, None, None), ("a", 2, None)))
    message = str(caught.value)
    assert "table notes, column user_id: expected no nulls, got 2 nulls in 3 rows" in message
    assert "table notes, column at: expected no nulls, got 1 nulls in 3 rows" in message
    assert "column note" not in message
    assert tables.partitions.find("notes", DS) is None


@pytest.mark.parametrize("is_over_a_group", [False, True])
def test_a_failing_iterator_leaves_the_existing_partition(tables, is_over_a_group):
    before = tables.write(NOTES, DS, notes(("old", 1, None)))
    seen = files_of(tables.partitions)

    def batches():
        count = ROW_GROUP_ROWS + 1 if is_over_a_group else 1
        yield notes(*[("new", 9, None)] * count).combine_chunks().to_batches()[0]
        raise RuntimeError("source went away")

    with pytest.raises(RuntimeError, match="source went away"):
        tables.write(NOTES, DS, batches(), schema=SCHEMA)
    assert files_of(tables.partitions) == seen
    assert tables.read(tables.partitions.need("notes", DS)).to_pydict() == {"user_id": ["old"], "at": [1], "note": [None]}
    verify(tables.partitions, before)


@pytest.mark.parametrize(("first", "end"), [(0, 10), (0, 4), (3, 7), (4, 4), (9, 10), (5, 99), (10, 12)])
def test_rows_reads_only_the_row_groups_of_its_range(tables, monkeypatch, first, end):
    monkeypatch.setattr("dssm_assets.storage.tables.ROW_GROUP_ROWS", 3)
    table = notes(*[(str(n), n, None) for n in range(10)])
    with tables.partitions.staging() as folder:
        staged = []
        for number, part in enumerate([table.slice(0, 4), table.slice(4, 0), table.slice(4)]):
            path = folder / part_name(number)
            staged.append((path, tables.write_part(path, NOTES, part.to_batches(), SCHEMA)))
        manifest = tables.publish_parts(NOTES, DS, staged, schema=SCHEMA)
    assert [file.rows for file in manifest.files] == [4, 0, 6]
    assert tables.read(manifest).equals(table)
    batches = list(tables.rows(manifest, ["at", "user_id"], first, end))
    assert [value for batch in batches for value in batch.column(0).to_pylist()] == list(range(first, min(end, 10)))
    assert all(batch.num_rows <= 3 for batch in batches)


def test_vectors_are_stored_plain_and_uncompressed(tmp_path):
    spec = TableSpec("vectors", "one row per id", ("id",), (ColumnSpec("id", None, ""), ColumnSpec("vector", None, "")))
    vectors = pa.FixedSizeListArray.from_arrays(pa.array([1.0, 1.0, 1.0, 1.0], pa.float32()), 2)
    stored = TableStore(stores(tmp_path)["local"])
    manifest = stored.write(spec, "2024-01-01", pa.table({"id": [1, 1], "vector": vectors}))
    chunks = pq.ParquetFile(stored.paths([manifest])[0]).metadata.row_group(0)
    kinds = {chunks.column(k).path_in_schema: chunks.column(k) for k in range(2)}
    assert kinds["id"].compression == "ZSTD"
    assert kinds["vector.list.element"].compression == "UNCOMPRESSED"
    assert not kinds["vector.list.element"].has_dictionary_page
    assert stored.read(manifest).column("vector").to_pylist() == [[1.0, 1.0], [1.0, 1.0]]
