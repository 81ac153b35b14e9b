"""The samplers' tables as text, in the form that EasyRec and graph-learn read: TSV with a header of names and types.

    item table    id:int64  weight:float  attrs:string      attrs: the item's values joined by a delimiter
    user table    id:int64  weight:float
    edge tables   userid:int64  itemid:int64  weight:float  positive edges, and hard negative edges alike

Ids may be text as well (`id:string`). What is written is read back the same: weights are written with as many digits as
they need, and a value that the form cannot hold is refused.

Belongs here: bytes to tables and back. Does not belong here: which rows they have (`negative_items`, `hard_negatives`)
and files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import comparable_ids
from dssm_assets.core.arrays.ragged import combine_chunks
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.features.operators.base import MULTI_SEPARATOR
from dssm_assets.core.samples.sample_tables import require_columns

_SHOWN = 100
"""Lines of one kind of fault that are named; of the others only their number is told."""


@dataclass(frozen=True)
class Cells:
    """The cells of the lines that have the right number of them.

    Attributes:
        flat: line after line, text.
        width: cells of a line.
        numbers: of the lines, the header being 1.
    """

    flat: pa.Array
    width: int
    numbers: npt.NDArray[np.int64]

    def column(self, place: int) -> pa.Array:
        """Returns the cells of one place of every line."""
        return self.flat.take(pa.array(np.arange(len(self.numbers), dtype=np.int64) * self.width + place))


def header_and_cells(data: bytes, words: str, width: int) -> tuple[str, Cells, list[Fault]]:
    """Returns the first line, the cells of all others, and a fault for each that has another number of cells.

    The last line break, and a carriage return before a line break, may be there or not.

    Raises:
        SchemaError: not UTF-8, naming the line.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        where = f"{words}, line {1 + data.count(10, 0, error.start)}"
        got = f"the byte 0x{data[error.start]:02x}"
        raise SchemaError(Fault(where, "text in UTF-8", got, "write the table in UTF-8")) from error
    header, _, body = text.partition("\n")
    lines = pa.array(body.removesuffix("\n").split("\n") if body else [], pa.string())
    lines = pc.if_else(pc.ends_with(lines, "\r"), pc.utf8_slice_codeunits(lines, 0, -1), lines)
    split = pc.split_pattern(lines, "\t")
    numbers = np.arange(len(lines), dtype=np.int64) + 2
    is_good = pc.equal(pc.list_value_length(split), width)
    faults = line_faults(numbers, is_good, lines, words, f"{width} cells between tabs")
    kept = is_good.to_numpy(zero_copy_only=False)
    return header.removesuffix("\r"), Cells(split.filter(is_good).flatten(), width, numbers[kept]), faults


def line_faults(numbers: npt.NDArray[np.int64], is_good: pa.Array, texts: pa.Array, where: str, expected: str) -> list[Fault]:
    """Returns a fault for every line that is not good, after a hundred of them one for all others.

    Args:
        numbers: of the lines.
        is_good: which are.
        texts: what stands there.
        where: the table and column.
        expected: what should.
    """
    bad = np.flatnonzero(~is_good.to_numpy(zero_copy_only=False))
    remedy = "correct those lines"
    faults = [
        Fault(f"{where}, line {number}", expected, repr(texts[row].as_py()), remedy)
        for row, number in zip(bad[:_SHOWN].tolist(), numbers[bad[:_SHOWN]].tolist(), strict=True)
    ]
    if len(bad) > _SHOWN:
        faults.append(Fault(f"{where}, other lines", expected, f"something else in {len(bad) - _SHOWN} more", remedy))
    return faults


_ID_NAMES: Final = {"int64": pa.int64(), "string": pa.string()}
_NUMBER: Final = r"^-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_WEIGHT_TEXT: Final = "a finite number of at least 0"
_LARGEST: Final = "9223372036854775807"
_BREAKS: Final = r"[\t\n\r]"


@dataclass(frozen=True)
class TsvSpec:
    """One kind of table.

    Attributes:
        words: what it is, in errors.
        ids: column of the table -> name of the id in the header.
        attr_fields: columns that are joined in `attrs`, in their order; None: the kind has none.
        delimiter: between attrs, one character.
    """

    words: str
    ids: dict[str, str]
    attr_fields: tuple[str, ...] | None = None
    delimiter: str = ":"

    @property
    def columns(self) -> list[str]:
        """The columns of the table: ids, weight, and the fields of attrs."""
        return [*self.ids, col.WEIGHT, *(self.attr_fields or ())]

    @property
    def width(self) -> int:
        """Cells of a line."""
        return len(self.ids) + 1 + (self.attr_fields is not None)


def item_spec(attr_fields: Sequence[str], delimiter: str = ":") -> TsvSpec:
    """Returns the form of the item table: item_id, weight and these fields.

    Raises:
        SchemaError: the delimiter is not one character, or one that ends a line or a cell.
    """
    if len(delimiter) != 1 or delimiter in "\t\n\r":
        expected = "one character that is no tab and no line break"
        raise SchemaError(Fault("item table, attr_delimiter", expected, repr(delimiter), "choose another, such as \\x02"))
    return TsvSpec("item table", {col.ITEM_ID: "id"}, tuple(attr_fields), delimiter)


USER_SPEC: Final = TsvSpec("user table", {col.USER_ID: "id"})
POSITIVE_EDGE_SPEC: Final = TsvSpec("positive edge table", {col.USER_ID: "userid", col.ITEM_ID: "itemid"})
HARD_EDGE_SPEC: Final = TsvSpec("hard negative edge table", {col.USER_ID: "userid", col.ITEM_ID: "itemid"})


def write_tsv(table: pa.Table, form: TsvSpec) -> bytes:
    """Returns a table as text, UTF-8, rows in their order.

    Args:
        table: the form's columns: ids (integers or text), weight (float32 or float64), fields of attrs (text).
        form: the kind.

    Raises:
        SchemaError: a column is missing or of another kind; ids, weights or fields are null; a weight is negative or not
            finite; a text holds a tab, a line break or the delimiter. One fault per line.
    """
    require_columns(form.words, table.column_names, form.columns)
    ids = [combine_chunks(comparable_ids(table.column(name), f"{form.words}, column {name}")) for name in form.ids]
    weights = _weights(table.column(col.WEIGHT), form)
    fields = [_text(table.column(name), form, name) for name in form.attr_fields or ()]
    numbers = np.arange(table.num_rows, dtype=np.int64) + 2
    is_good = pc.and_(pc.is_finite(weights), pc.greater_equal(weights, 0.0))
    faults = line_faults(numbers, is_good, weights, f"{form.words}, column weight", _WEIGHT_TEXT)
    for name, column in zip(form.columns, [*ids, weights, *fields], strict=True):
        if pa.types.is_string(column.type):
            is_attr = name in (form.attr_fields or ())
            marks = "tab, line break or delimiter" if is_attr else "tab or line break"
            is_good = pc.invert(pc.match_substring_regex(column, _BREAKS))
            if is_attr:
                is_good = pc.and_(is_good, pc.invert(pc.match_substring(column, form.delimiter)))
            faults += line_faults(numbers, is_good, column, f"{form.words}, column {name}", f"text without {marks}")
    if faults:
        raise SchemaError(faults)
    # Arrow writes the fewest digits that give this very number again.
    cells = [*(column.cast(pa.string()) for column in ids), weights.cast(pa.string())]
    if form.attr_fields is not None:
        nothing = pa.array([""], pa.string()).take(pa.array(np.zeros(table.num_rows, np.int64)))
        cells.append(pc.binary_join_element_wise(*fields, form.delimiter) if fields else nothing)
    header = "\t".join(_header(form, [column.type for column in ids]))
    return ("\n".join([header, *pc.binary_join_element_wise(*cells, "\t").to_pylist()]) + "\n").encode()


def read_tsv(data: bytes, form: TsvSpec) -> pa.Table:
    """Returns the table that a text holds: ids int64 or string as the header says, weight float64, fields of attrs string.

    A last line break, and carriage returns before line breaks, may be there or not.

    Raises:
        SchemaError: not UTF-8; another header; a line with another number of cells, an id that is no int64, a weight that is
            no finite number of at least 0, or attrs of another number of fields. One fault per line.
    """
    header, cells, faults = header_and_cells(data, form.words, form.width)
    kinds = _id_kinds(header, form)
    columns: dict[str, pa.Array] = {}
    for place, (name, kind) in enumerate(zip(form.ids, kinds, strict=True)):
        columns[name], found = _read_ids(cells, place, kind, form)
        faults += found
    columns[col.WEIGHT], found = _read_weights(cells, len(kinds), form)
    faults += found
    if form.attr_fields is not None:
        fields, found = _read_attrs(cells, len(kinds) + 1, form)
        columns |= fields
        faults += found
    if faults:
        raise SchemaError(faults)
    return pa.table(columns)


def _header(form: TsvSpec, kinds: Sequence[pa.DataType]) -> list[str]:
    types = {kind: name for name, kind in _ID_NAMES.items()}
    named = [f"{name}:{types[kind]}" for name, kind in zip(form.ids.values(), kinds, strict=True)]
    return [*named, "weight:float", *(["attrs:string"] if form.attr_fields is not None else [])]


def _id_kinds(header: str, form: TsvSpec) -> list[pa.DataType]:
    """Returns the type of each id by the header."""
    got = header.split("\t")
    named = [cell.partition(":")[2] for cell in got[: len(form.ids)]]
    kinds = [_ID_NAMES.get(name, pa.int64()) for name in named] + [pa.int64()] * (len(form.ids) - len(named))
    if got != _header(form, kinds):
        expected = repr("\t".join(_header(form, [pa.int64()] * len(form.ids))))
        raise SchemaError(Fault(f"{form.words}, line 1", expected, repr(header), "write the header of this kind of table"))
    return kinds


def _read_ids(cells: Cells, place: int, kind: pa.DataType, form: TsvSpec) -> tuple[pa.Array, list[Fault]]:
    text = cells.column(place)
    if pa.types.is_string(kind):
        return text, []
    digits = pc.utf8_ltrim(text, "-0")
    # Of equally many digits the smaller number is the smaller text.
    is_small = pc.or_(
        pc.less(pc.utf8_length(digits), len(_LARGEST)),
        pc.and_(pc.equal(pc.utf8_length(digits), len(_LARGEST)), pc.less_equal(digits, _LARGEST)),
    )
    is_good = pc.and_(pc.match_substring_regex(text, r"^-?[0-9]+$"), pc.or_(is_small, pc.equal(text, f"{-(1 << 63)}")))
    where = f"{form.words}, column {list(form.ids.values())[place]}"
    faults = line_faults(cells.numbers, is_good, text, where, "an int64")
    return pc.if_else(is_good, text, "0").cast(pa.int64()), faults


def _read_weights(cells: Cells, place: int, form: TsvSpec) -> tuple[pa.Array, list[Fault]]:
    text = cells.column(place)
    is_number = pc.match_substring_regex(text, _NUMBER)
    values = pc.if_else(is_number, text, "0").cast(pa.float64())
    is_good = pc.and_(is_number, pc.and_(pc.is_finite(values), pc.greater_equal(values, 0.0)))
    return values, line_faults(cells.numbers, is_good, text, f"{form.words}, column weight", _WEIGHT_TEXT)


def _read_attrs(cells: Cells, place: int, form: TsvSpec) -> tuple[dict[str, pa.Array], list[Fault]]:
    names = form.attr_fields or ()
    text = cells.column(place)
    split = pc.split_pattern(text, form.delimiter)
    is_good = pc.equal(pc.list_value_length(split), len(names)) if names else pc.equal(text, "")
    expected = f"{len(names)} fields between {form.delimiter!r}"
    faults = line_faults(cells.numbers, is_good, text, f"{form.words}, column attrs", expected)
    if faults:
        return {}, faults
    fields = Cells(split.flatten(), len(names), cells.numbers)
    return {name: fields.column(at) for at, name in enumerate(names)}, []


def _weights(column: pa.ChunkedArray, form: TsvSpec) -> pa.Array:
    if not pa.types.is_floating(column.type) or column.null_count:
        got = f"{column.type} with {column.null_count} nulls"
        raise SchemaError(Fault(f"{form.words}, column weight", "floats without nulls", got, "write weights as floats"))
    return combine_chunks(column)


def _text(column: pa.ChunkedArray, form: TsvSpec, name: str) -> pa.Array:
    array = combine_chunks(column)
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if not pa.types.is_string(array.type) or array.null_count:
        got = f"{array.type} with {array.null_count} nulls"
        raise SchemaError(Fault(f"{form.words}, column {name}", "text without nulls", got, "encode the feature as text"))
    return array


EDGE: Final = (col.USER_ID, col.ITEM_ID)


def items_as_text(negatives: pa.Table) -> tuple[pa.Table, list[str]]:
    """Returns item_id, weight and the features as text, and the features' names.

    Args:
        negatives: the corpus, `negative_items`. A missing value is an empty text, also among several;
            several values are joined by fg.json's separator.
    """
    fields = [name for name in negatives.column_names if name not in {col.ITEM_ID, col.WEIGHT, col.COUNT}]
    columns = {name: negatives.column(name) for name in (col.ITEM_ID, col.WEIGHT)}
    return pa.table({**columns, **{name: _text_column(combine_chunks(negatives.column(name))) for name in fields}}), fields


def count_keys(days: Iterable[pa.Table], keys: Sequence[str]) -> pa.Table:
    """Returns the distinct keys, sorted, and as their weight float64 how many rows have them.

    Args:
        days: one table per day; one is held at a time, and the distinct keys.
        keys: user_id, item_id or both.
    """
    total: pa.Table | None = None
    for day in days:
        require_columns("table of samples", day.column_names, keys)
        ids = {key: comparable_ids(day.column(key), f"table of samples, column {key}") for key in keys}
        rows = pa.table({**ids, col.WEIGHT: pa.array(np.ones(day.num_rows))})
        held = rows if total is None else pa.concat_tables([total, rows])
        summed = held.group_by(list(keys)).aggregate([(col.WEIGHT, "sum")])
        total = summed.rename_columns([*keys, col.WEIGHT]).select([*keys, col.WEIGHT])
    if total is None:
        raise ValueError("counting needs at least one day")
    return total.sort_by([(key, "ascending") for key in keys])


def select_exposures(day: pa.Table, events: Sequence[str]) -> pa.Table:
    """Returns the rows of `sample_fg` that say that an item was shown: of label 0, and of one of these events."""
    event = day.column(col.EVENT).cast(pa.string())
    is_shown = pc.and_(pc.equal(day.column(col.LABEL), 0), pc.is_in(event, value_set=pa.array(sorted(events), pa.string())))
    return day.filter(is_shown)


def drop_positives(shown: pa.Table, taken: pa.Table) -> pa.Table:
    """Returns the edges that are not among others, in their order."""
    left = shown.join(taken.select(list(EDGE)), list(EDGE), join_type="left anti")
    return left.select([*EDGE, col.WEIGHT]).sort_by([(key, "ascending") for key in EDGE])


def _text_column(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        texts = column.cast(pa.list_(pa.string()))
        filled = pa.ListArray.from_arrays(texts.offsets, pc.fill_null(texts.values, ""), mask=texts.is_null())
        column = pc.binary_join(filled, MULTI_SEPARATOR)
    return pc.fill_null(column.cast(pa.string()), "")
