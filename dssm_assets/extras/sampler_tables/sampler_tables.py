"""Text tables for the negative samplers of EasyRec and graph-learn: tab-separated, with a header that names columns and types.

    item table    id:int64  weight:float  attrs:string      attrs: the item's features joined by a delimiter
    user table    id:int64  weight:float
    edge tables   userid:int64  itemid:int64  weight:float  for positive edges and for hard negative edges

Ids may also be text (`id:string`). A written table reads back equal, because weights are written with all digits, and values
that the format cannot hold are refused.

The lines are joined here, because pyarrow.csv cannot write a quotation mark without quoting the cell.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import comparable_ids
from dssm_assets.core.arrays.ragged import combine_chunks, is_list, map_leaves
from dssm_assets.core.config.section import repeated_names
from dssm_assets.core.errors import Fault, InputError, SchemaError
from dssm_assets.core.features.operators.base import MULTI_SEPARATOR
from dssm_assets.core.samples.negatives import select_exposures
from dssm_assets.core.samples.sample_tables import require_columns
from dssm_assets.core.sources.convert import decode_column
from dssm_assets.steps.training import read_exposures
from dssm_assets.steps.workspace import Workspace, window_days
from dssm_assets.storage.files import TableWriter
from dssm_assets.storage.local_files import write_atomic

EDGE_KEYS: Final = (col.USER_ID, col.ITEM_ID)


@dataclass(frozen=True)
class TsvSpec:
    """One kind of text table: its title, id column -> its name in the header, and the fields that `attrs` joins, if any."""

    title: str
    ids: dict[str, str]
    attr_fields: tuple[str, ...] | None = None
    delimiter: str = ":"

    @property
    def columns(self) -> list[str]:
        return [*self.ids, col.WEIGHT, *(self.attr_fields or ())]


def item_spec(attr_fields: Sequence[str], delimiter: str = ":") -> TsvSpec:
    """Returns the specification of an item table with the columns item_id, weight and the given fields."""
    if len(delimiter) != 1 or delimiter in "\t\n\r":
        expected = "one character that is neither a tab nor a line break"
        raise SchemaError(Fault("item table, attr_delimiter", expected, repr(delimiter), "choose another, such as \\x02"))
    if twice := repeated_names([col.ITEM_ID, col.WEIGHT, *attr_fields]):
        raise SchemaError(Fault("item table, attrs", "columns with different names", f"{twice} twice", "rename one"))
    return TsvSpec("item table", {col.ITEM_ID: "id"}, tuple(attr_fields), delimiter)


USER_SPEC: Final = TsvSpec("user table", {col.USER_ID: "id"})
POSITIVE_EDGE_SPEC: Final = TsvSpec("positive edge table", {col.USER_ID: "userid", col.ITEM_ID: "itemid"})
HARD_EDGE_SPEC: Final = TsvSpec("hard negative edge table", {col.USER_ID: "userid", col.ITEM_ID: "itemid"})
SPECS: Final = {"users": USER_SPEC, "positive_edges": POSITIVE_EDGE_SPEC, "hard_edges": HARD_EDGE_SPEC}


def write_sampler_tables(workspace: Workspace, ds: str, folder: Path, delimiter: str = ":") -> tuple[dict[str, int], list[str]]:
    """Writes items.txt, users.txt and positive_edges.txt of a day's window, and hard_edges.txt if there are exposure events.

    Returns file name -> number of rows, and the names of the features in the column attrs, in order.
    """
    days = window_days(ds, workspace.config.window.days)

    def read(asset: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        return (workspace.tables.read(day, list(columns)) for day in workspace.need_all(asset, days))

    items, fields = items_as_text(workspace.tables.read(workspace.need("negative_items", ds)))
    positives = count_keys(read("positive_sample", EDGE_KEYS), EDGE_KEYS)
    tables = {
        "items": (items, item_spec(fields, delimiter)),
        "users": (count_keys(read("positive_sample", [col.USER_ID]), [col.USER_ID]), USER_SPEC),
        "positive_edges": (positives, POSITIVE_EDGE_SPEC),
    }
    if events := workspace.config.events.exposure:
        exposures = (read_exposures(workspace, day) for day in workspace.need_all("sample_fg", days))
        shown = count_keys((select_exposures(day, events) for day in exposures), EDGE_KEYS)
        tables["hard_edges"] = drop_positives(shown, positives), HARD_EDGE_SPEC
    else:  # a file left by an earlier call would look like part of this window
        (folder / "hard_edges.txt").unlink(missing_ok=True)
    for name, (table, spec) in tables.items():
        write_atomic(folder / f"{name}.txt", [write_tsv(table, spec)])
    return {name: table.num_rows for name, (table, _) in tables.items()}, fields


def read_sampler_table(path: Path, kind: str, attrs: Sequence[str], into: str, delimiter: str = ":") -> int:
    """Converts a text table to a parquet or csv file and returns its number of rows."""
    spec: TsvSpec = item_spec(attrs, delimiter) if kind == "items" else SPECS[kind]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(Fault(f"text table {path}", "a file that can be read", str(error), "correct the path")) from error
    table = read_tsv(data, spec)
    with TableWriter(into) as writer:
        writer.write(table)
    return int(table.num_rows)


def items_as_text(negatives: pa.Table) -> tuple[pa.Table, list[str]]:
    """Returns a table with item_id, weight and each feature of `negative_items` as text, and the features' names.

    A missing value becomes an empty text, also within a list. The values of a list are joined by fg.json's separator.
    """
    fields = [name for name in negatives.column_names if name not in {col.ITEM_ID, col.WEIGHT, col.COUNT}]
    columns = {name: negatives.column(name) for name in (col.ITEM_ID, col.WEIGHT)}
    return pa.table({**columns, **{name: _as_text(negatives.column(name)) for name in fields}}), fields


def count_keys(days: Iterable[pa.Table], keys: Sequence[str]) -> pa.Table:
    """Returns the distinct keys, sorted, with their number of rows as the weight. One day is in memory at a time."""
    total: list[pa.Table] = []
    for day in days:
        require_columns("table of samples", day.column_names, keys)
        ids = {key: comparable_ids(day.column(key), f"table of samples, column {key}") for key in keys}
        rows = pa.table({**ids, col.WEIGHT: pa.array(np.ones(day.num_rows))})
        summed = pa.concat_tables([*total, rows]).group_by(list(keys)).aggregate([(col.WEIGHT, "sum")])
        total = [summed.rename_columns([*keys, col.WEIGHT])]
    return total[0].sort_by([(key, "ascending") for key in keys])


def drop_positives(shown: pa.Table, positives: pa.Table) -> pa.Table:
    """Returns the shown edges that are not positive edges, sorted."""
    left = shown.join(positives.select(list(EDGE_KEYS)), list(EDGE_KEYS), join_type="left anti")
    return left.select([*EDGE_KEYS, col.WEIGHT]).sort_by([(key, "ascending") for key in EDGE_KEYS])


_ID_TYPES: Final = {"int64": pa.int64(), "string": pa.string()}
_ATTRS: Final = "attrs"


def write_tsv(table: pa.Table, spec: TsvSpec) -> bytes:
    """Writes a table as UTF-8 text, in the order of its rows.

    Args:
        table: has the columns of the specification: ids (integers or text), weight (floats), fields of attrs (text without nulls).

    Raises:
        SchemaError: the format cannot hold a column or value. The error has the first line with such a value.
    """
    ids = [combine_chunks(comparable_ids(table.column(name), f"{spec.title}, column {name}")) for name in spec.ids]
    weights = combine_chunks(table.column(col.WEIGHT))
    fields = [combine_chunks(table.column(name)) for name in spec.attr_fields or ()]
    for name, column in zip(spec.ids, ids, strict=True):
        if pa.types.is_string(column.type):
            is_bad = pc.match_substring_regex(column, r"[\t\n\r]")
            _refuse(column, is_bad, f"{spec.title}, column {name}", "text without tab or line break")
    for name, column in zip(spec.attr_fields or (), fields, strict=True):
        is_bad = pc.or_(pc.match_substring_regex(column, r"[\t\n\r]"), pc.match_substring(column, spec.delimiter))
        _refuse(column, is_bad, f"{spec.title}, column {name}", "text without tab, line break or delimiter")
    cells = [*ids, weights]  # Arrow writes the fewest digits that read back as the same number.
    if spec.attr_fields is not None:
        cells.append(pc.binary_join_element_wise(*fields, spec.delimiter) if fields else pa.repeat("", table.num_rows))
    header = _header(spec, [column.type for column in ids])
    tab, end, none = pa.array(["\t", "\n", ""], pa.large_string())  # a column of lines may exceed 2 GiB
    cells = [cell.cast(tab.type) for cell in cells]
    lines = pc.binary_join_element_wise(*cells[:-1], pc.binary_join_element_wise(cells[-1], end, none), tab)
    return f"{header}\n".encode() + (lines.buffers()[2].to_pybytes() if len(lines) else b"")


def read_tsv(data: bytes, spec: TsvSpec) -> pa.Table:
    """Parses a text table. Ids become int64 or string (by the header), weights float64, and the fields of attrs string.

    Raises:
        SchemaError: the header or a line does not fit the specification. The error has the first such line.
    """
    types = _id_types(data.partition(b"\n")[0].decode(errors="replace").rstrip("\r"), spec)
    kinds = {**dict(zip(spec.ids, types, strict=True)), col.WEIGHT: pa.float64()}
    if spec.attr_fields is not None:
        kinds[_ATTRS] = pa.string()
    try:
        rows = csv.read_csv(
            pa.BufferReader(data if data.endswith(b"\n") else data + b"\n"),
            csv.ReadOptions(column_names=list(kinds), skip_rows=1, use_threads=False),  # with threads, errors name no line
            csv.ParseOptions(delimiter="\t", quote_char=False, ignore_empty_lines=False),
            csv.ConvertOptions(column_types=kinds, null_values=[], strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        expected = f"lines of {len(kinds)} cells between tabs, as the header says"
        raise SchemaError(Fault(spec.title, expected, str(error), "correct these lines")) from error
    weights = rows.column(col.WEIGHT)
    is_good = pc.and_(pc.is_finite(weights), pc.greater_equal(weights, 0))
    _refuse(weights, pc.invert(is_good), f"{spec.title}, column weight", "a finite number of at least 0")
    if (names := spec.attr_fields) is None:
        return rows
    texts = rows.column(_ATTRS)
    fields = pc.split_pattern(texts, spec.delimiter)
    is_bad = pc.not_equal(pc.list_value_length(fields), len(names)) if names else pc.not_equal(texts, "")
    _refuse(texts, is_bad, f"{spec.title}, column attrs", f"{len(names)} fields between {spec.delimiter!r}")
    rows = rows.drop_columns([_ATTRS])
    for place, name in enumerate(names):
        rows = rows.append_column(name, pc.list_element(fields, place))
    return rows


def _refuse(column: pa.Array, is_bad: pa.Array, where: str, expected: str) -> None:
    if (row := pc.index(is_bad, True).as_py()) >= 0:
        fault = Fault(f"{where}, line {row + 2}", expected, repr(column[row].as_py()), "correct this line and others like it")
        raise SchemaError(fault)


def _header(spec: TsvSpec, types: Sequence[pa.DataType]) -> str:
    names = {kind: name for name, kind in _ID_TYPES.items()}
    ids = [f"{name}:{names[kind]}" for name, kind in zip(spec.ids.values(), types, strict=True)]
    return "\t".join([*ids, "weight:float", *(["attrs:string"] if spec.attr_fields is not None else [])])


def _id_types(header: str, spec: TsvSpec) -> Sequence[pa.DataType]:
    for types in itertools.product(_ID_TYPES.values(), repeat=len(spec.ids)):
        if header == _header(spec, types):
            return types
    expected = repr(_header(spec, [pa.int64()] * len(spec.ids)))
    raise SchemaError(Fault(f"{spec.title}, line 1", expected, repr(header), "write the header of this kind of table"))


def _as_text(values: pa.ChunkedArray) -> pa.Array:
    texts = map_leaves(decode_column(values), lambda leaves: pc.fill_null(leaves.cast(pa.string()), ""))
    return pc.fill_null(pc.binary_join(texts, MULTI_SEPARATOR), "") if is_list(texts.type) else texts
