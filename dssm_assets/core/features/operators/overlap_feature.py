"""overlap_feature: a measure of the overlap of the terms of two inputs, such as a query and a title.

`core/features/text/terms.py` computes the measures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from dssm_assets.core.features.column_values import Numbers
from dssm_assets.core.features.expressions import ExpressionText
from dssm_assets.core.features.operators.base import MULTI_SEPARATOR, NumericOperator
from dssm_assets.core.features.text import terms
from dssm_assets.core.features.text.terms import Terms


class Method(StrEnum):
    """The measure.

    The ratios count occurrences: a term that a side has twice counts twice. The proximity measures use the distinct terms
    of the query. A query of one term has no pairs, so its distances are the length of the title + 1, and its cover is 1 if
    the term occurs.
    """

    QUERY_COMMON_RATIO = "query_common_ratio"
    """Fraction of the terms of the query that occur in the title."""
    TITLE_COMMON_RATIO = "title_common_ratio"
    """Fraction of the terms of the title that occur in the query."""
    IS_CONTAIN = "is_contain"
    """1 if the title contains the terms of the query in sequence, else 0."""
    IS_EQUAL = "is_equal"
    """1 if both have the same terms in the same order, else 0."""
    INDEX_OF = "index_of"
    """Position in the title, from 0, of the first occurrence of the whole query; -1 if it does not occur."""
    PROXIMITY_MIN_COVER = "proximity_min_cover"
    """Length of the shortest window of the title that contains all terms of the query; 0 if one does not occur."""
    PROXIMITY_MIN_DIST = "proximity_min_dist"
    """Smallest distance of a pair of query terms in the title; the length of the title + 1 if no pair occurs."""
    PROXIMITY_MAX_DIST = "proximity_max_dist"
    """Largest of the smallest distances of each pair; likewise."""
    PROXIMITY_AVG_DIST = "proximity_avg_dist"
    """Mean of the smallest distances of each pair; likewise."""


_MEASURES: Final[Mapping[Method, Callable[[Terms, Terms], Numbers]]] = MappingProxyType(
    {
        Method.QUERY_COMMON_RATIO: terms.common_ratio,
        Method.TITLE_COMMON_RATIO: lambda query, title: terms.common_ratio(title, query),
        Method.IS_CONTAIN: terms.containment,
        Method.IS_EQUAL: terms.equality,
        Method.INDEX_OF: terms.first_position,
        Method.PROXIMITY_MIN_COVER: terms.min_cover,
        Method.PROXIMITY_MIN_DIST: terms.min_dist,
        Method.PROXIMITY_MAX_DIST: terms.max_dist,
        Method.PROXIMITY_AVG_DIST: terms.avg_dist,
    }
)


class OverlapFeature(NumericOperator):
    """One measure of the overlap of two lists of terms. A row in which a side has no terms is missing.

    Terms are the elements of a list, or the parts of a text between separators. Missing and empty terms are ignored and
    take no position.

    Attributes:
        query: the terms to look for.
        title: the terms among which to look.
        method: the measure, see `Method`.
        default_value: number of a missing row (default "0"; "" leaves it missing).
        normalizer: applied to the measure (default: none).
        separator: separates the terms of a text (default: the character 0x1d).
    """

    feature_type: Literal["overlap_feature"] = "overlap_feature"
    query: ExpressionText
    title: ExpressionText
    input_keys = ("query", "title")
    method: Method
    separator: str = Field(default=MULTI_SEPARATOR, min_length=1)

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        query, title = terms.read_terms(inputs[0], inputs[1], self.separator, (self.where(0), self.where(1)))
        numbers = _MEASURES[self.method](query, title)
        return self.finish(np.where((query.lengths > 0) & (title.lengths > 0), numbers, np.nan))
