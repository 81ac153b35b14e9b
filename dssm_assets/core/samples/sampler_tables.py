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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.samples.id_index import comparable_ids, one_array
from dssm_assets.core.samples.specs import require_columns
from dssm_assets.core.samples.text_lines import Cells, header_and_cells, line_faults

_ID_NAMES: Final = {"int64": pa.int64(), "string": pa.string()}
_NUMBER: Final = r"^-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_WEIGHT_TEXT: Final = "a finite number of at least 0"
_LARGEST: Final = "9223372036854775807"
_BREAKS: Final = r"[\t\n\r]"


@dataclass(frozen=True)
class TextForm:
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


def item_form(attr_fields: Sequence[str], delimiter: str = ":") -> TextForm:
    """Returns the form of the item table: item_id, weight and these fields.

    Raises:
        SchemaError: the delimiter is not one character, or one that ends a line or a cell.
    """
    if len(delimiter) != 1 or delimiter in "\t\n\r":
        expected = "one character that is no tab and no line break"
        raise SchemaError(Fault("item table, attr_delimiter", expected, repr(delimiter), "choose another, such as \\x02"))
    return TextForm("item table", {col.ITEM_ID: "id"}, tuple(attr_fields), delimiter)


USER_FORM: Final = TextForm("user table", {col.USER_ID: "id"})
POSITIVE_EDGE_FORM: Final = TextForm("positive edge table", {col.USER_ID: "userid", col.ITEM_ID: "itemid"})
HARD_EDGE_FORM: Final = TextForm("hard negative edge table", {col.USER_ID: "userid", col.ITEM_ID: "itemid"})


def write_text(table: pa.Table, form: TextForm) -> bytes:
    """Returns a table as text, UTF-8, rows in their order.

    Args:
        table: the form's columns: ids (integers or text), weight (float32 or float64), fields of attrs (text).
        form: the kind.

    Raises:
        SchemaError: a column is missing or of another kind; ids, weights or fields are null; a weight is negative or not
            finite; a text holds a tab, a line break or the delimiter. One fault per line.
    """
    require_columns(form.words, table.column_names, form.columns)
    ids = [one_array(comparable_ids(table.column(name), f"{form.words}, column {name}")) for name in form.ids]
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


def read_text(data: bytes, form: TextForm) -> pa.Table:
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


def _header(form: TextForm, kinds: Sequence[pa.DataType]) -> list[str]:
    types = {kind: name for name, kind in _ID_NAMES.items()}
    named = [f"{name}:{types[kind]}" for name, kind in zip(form.ids.values(), kinds, strict=True)]
    return [*named, "weight:float", *(["attrs:string"] if form.attr_fields is not None else [])]


def _id_kinds(header: str, form: TextForm) -> list[pa.DataType]:
    """Returns the type of each id by the header."""
    got = header.split("\t")
    named = [cell.partition(":")[2] for cell in got[: len(form.ids)]]
    kinds = [_ID_NAMES.get(name, pa.int64()) for name in named] + [pa.int64()] * (len(form.ids) - len(named))
    if got != _header(form, kinds):
        expected = repr("\t".join(_header(form, [pa.int64()] * len(form.ids))))
        raise SchemaError(Fault(f"{form.words}, line 1", expected, repr(header), "write the header of this kind of table"))
    return kinds


def _read_ids(cells: Cells, place: int, kind: pa.DataType, form: TextForm) -> tuple[pa.Array, list[Fault]]:
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


def _read_weights(cells: Cells, place: int, form: TextForm) -> tuple[pa.Array, list[Fault]]:
    text = cells.column(place)
    is_number = pc.match_substring_regex(text, _NUMBER)
    values = pc.if_else(is_number, text, "0").cast(pa.float64())
    is_good = pc.and_(is_number, pc.and_(pc.is_finite(values), pc.greater_equal(values, 0.0)))
    return values, line_faults(cells.numbers, is_good, text, f"{form.words}, column weight", _WEIGHT_TEXT)


def _read_attrs(cells: Cells, place: int, form: TextForm) -> tuple[dict[str, pa.Array], list[Fault]]:
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


def _weights(column: pa.ChunkedArray, form: TextForm) -> pa.Array:
    if not pa.types.is_floating(column.type) or column.null_count:
        got = f"{column.type} with {column.null_count} nulls"
        raise SchemaError(Fault(f"{form.words}, column weight", "floats without nulls", got, "write weights as floats"))
    return one_array(column)


def _text(column: pa.ChunkedArray, form: TextForm, name: str) -> pa.Array:
    array = one_array(column)
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if not pa.types.is_string(array.type) or array.null_count:
        got = f"{array.type} with {array.null_count} nulls"
        raise SchemaError(Fault(f"{form.words}, column {name}", "text without nulls", got, "encode the feature as text"))
    return array
