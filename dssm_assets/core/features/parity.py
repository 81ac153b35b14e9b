"""Parity check: computes the features of sampled rows again, as single requests, and compares them with the batch's features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.features import requests
from dssm_assets.core.features.generator import FeatureGenerator


@dataclass(frozen=True)
class ParityReport:
    """Differences between features of single requests and of the batch.

    Attributes:
        row_count: number of compared rows.
        differing: feature -> number of rows that differ.
        example: description of the first difference, "" if there is none.
    """

    row_count: int
    differing: Mapping[str, int] = field(default_factory=dict)
    example: str = ""

    @property
    def is_passed(self) -> bool:
        return not self.differing

    @property
    def sentence(self) -> str:
        if self.is_passed:
            return f"{self.row_count} sampled rows have the same features in batch and in single requests"
        names = ", ".join(f"{name} ({count})" for name, count in sorted(self.differing.items()))
        return f"batch and single request differ in {names} of {self.row_count} sampled rows; {self.example}"


def choose_rows(row_count: int, wanted: int) -> IntArray:
    """Returns up to `wanted` row positions, evenly spaced from the first row to the last."""
    return np.linspace(0, row_count - 1, min(wanted, row_count)).round().astype(np.int64)


def replay_rows(
    generator: FeatureGenerator,
    table: pa.Table,
    encoded: pa.Table,
    side: str,
    positions: Sequence[int],
    *,
    start: int = 0,
    is_whole: bool = False,
) -> ParityReport:
    """Sends some rows as single requests and compares their features with the encoded table.

    The table may be a block of a larger table; positions outside the block are skipped.

    Args:
        encoded: features of all rows of the block, from `FeatureGenerator.encode` for the side.
        positions: rows to replay, counted in the larger table.
        start: position of the block's first row in the larger table.
    """
    replayed = [position for position in positions if start <= position < start + table.num_rows]
    differing, example = Counter[str](), ""
    for position in replayed:
        row = {name: ragged.combine_chunks(table.column(name).slice(position - start, 1)) for name in table.column_names}
        request = requests.first_row(pa.table({name: ragged.map_leaves(one, _decimals) for name, one in row.items()}))
        single = generator.encode_one(request, side, is_whole=is_whole)
        for name, value in requests.first_row(encoded.slice(position - start, 1)).items():
            if single[name] != value:
                differing[name] += 1
                example = example or f"row {position}, {name}: {value!r} in batch, {single[name]!r} in a request"
    return ParityReport(len(replayed), differing, example)


def _decimals(values: pa.Array) -> pa.Array:
    """Converts float32 numbers to their shortest decimals, because JSON writes these. Other values stay."""
    is_narrow = pa.types.is_float32(values.type) or pa.types.is_float16(values.type)
    return requests.decimal_numbers(values) if is_narrow else values


def merge_reports(reports: Sequence[ParityReport]) -> ParityReport:
    """Merges the reports of several blocks into one."""
    differing: Counter[str] = sum((Counter(report.differing) for report in reports), Counter())
    example = next((report.example for report in reports if report.example), "")
    return ParityReport(sum(report.row_count for report in reports), differing, example)
