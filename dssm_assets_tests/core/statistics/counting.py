"""Counts of the features of one kind in one table."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features.spec import Feature
from dssm_assets.core.statistics.value_counts import ONCE, Uses, count_values


def count_numbers(table: pa.Table, features: Sequence[Feature], uses: Uses = ONCE) -> pa.Table:
    """Returns the counts of the numeric ones of the features."""
    return count_values(Kind.NUMERIC, [(table, features, uses)])


def count_categories(table: pa.Table, features: Sequence[Feature], uses: Uses = ONCE) -> pa.Table:
    """Returns the counts of the categorical ones of the features."""
    return count_values(Kind.CATEGORICAL, [(table, features, uses)])
