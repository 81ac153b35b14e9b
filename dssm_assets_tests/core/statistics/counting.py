"""Counts of the features of one kind in one table."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features.spec import Feature
from dssm_assets.core.statistics.value_counts import Counts, count_values, merge_value_counts


def count_numbers(table: pa.Table, features: Sequence[Feature], uses: Counts | None = None) -> pa.Table:
    return merge_value_counts([count_values(Kind.NUMERIC, table, features, uses)])


def count_categories(table: pa.Table, features: Sequence[Feature], uses: Counts | None = None) -> pa.Table:
    return merge_value_counts([count_values(Kind.CATEGORICAL, table, features, uses)])
