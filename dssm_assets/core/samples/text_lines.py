"""Lines of a text table, cut into cells, with the number of each so that an error can name it.

Belongs here: lines, cells and the faults of lines. Does not belong here: what the cells mean (`sampler_tables`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.errors import Fault, SchemaError

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
