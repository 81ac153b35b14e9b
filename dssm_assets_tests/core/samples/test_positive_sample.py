"""Positive samples are the rows with label 1, in order."""

from __future__ import annotations

import pyarrow as pa
import pytest

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.samples.positive_sample import positive_sample


def table(labels: list[int | None]) -> pa.Table:
    return pa.table({"row": list(range(len(labels))), "label": pa.array(labels, pa.int8())})


def test_keeps_label_1_in_order() -> None:
    assert positive_sample(table([1, 0, 1, 0])).to_pylist() == [{"row": 0, "label": 1}, {"row": 2, "label": 1}]


def test_a_day_without_positives_is_an_empty_table_with_the_same_columns() -> None:
    rows = positive_sample(table([0, 0]))
    assert rows.num_rows == 0
    assert rows.schema == table([0]).schema
    assert positive_sample(table([])).num_rows == 0


def test_labels_that_are_neither_0_nor_1_are_refused() -> None:
    with pytest.raises(SchemaError, match="expected 0 or 1, got 2, None"):
        positive_sample(table([1, 2, None]))


def test_a_table_without_labels_is_refused() -> None:
    with pytest.raises(SchemaError, match="column label: expected the column to exist"):
        positive_sample(table([1]).drop_columns(["label"]))
