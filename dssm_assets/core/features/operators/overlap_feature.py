"""overlap_feature: one number that says how the terms of a query and of a title overlap.

Belongs here: the keys of the feature and the names of the measures. Does not belong here: the measures
(`term_overlap.py`, `term_proximity.py`).
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
from dssm_assets.core.features.operators.base import MULTI_SEPARATOR
from dssm_assets.core.features.operators.numeric_operator import NumericOperator
from dssm_assets.core.features.text import terms
from dssm_assets.core.features.text.terms import Terms


class Method(StrEnum):
    """What is measured.

    The ratios count occurrences of the side they divide: a term that stands twice counts twice. The proximity measures
    look at the distinct terms of the query. A query of one term has no pairs: its distances are the title's length + 1,
    and its cover is 1 if the term occurs.
    """

    QUERY_COMMON_RATIO = "query_common_ratio"
    """Share of the query's terms that occur in the title."""
    TITLE_COMMON_RATIO = "title_common_ratio"
    """Share of the title's terms that occur in the query."""
    IS_CONTAIN = "is_contain"
    """1 if the query's terms stand in the title side by side and in order, else 0."""
    IS_EQUAL = "is_equal"
    """1 if both have the same terms in the same order, else 0."""
    INDEX_OF = "index_of"
    """Place in the title, from 0, where the query as a whole first stands; -1 if it does not."""
    PROXIMITY_MIN_COVER = "proximity_min_cover"
    """Length of the smallest window of the title that holds all query terms; 0 if one does not occur."""
    PROXIMITY_MIN_DIST = "proximity_min_dist"
    """Least distance of a pair of query terms in the title; the title's length + 1 without a pair that occurs."""
    PROXIMITY_MAX_DIST = "proximity_max_dist"
    """Greatest of the pairs' least distances; likewise."""
    PROXIMITY_AVG_DIST = "proximity_avg_dist"
    """Mean of the pairs' least distances; likewise."""


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
    """One measure of the terms of two inputs. A row without a term on a side is missing and gets the default.

    Terms are the elements of a list, or what the separator leaves of a text; missing and empty ones do not count, and
    have no place.

    Attributes:
        query: the terms that are looked for.
        title: the terms among which they are looked for.
        method: the measure.
        separator: what stands between the terms of a text.
    """

    feature_type: Literal["overlap_feature"] = "overlap_feature"
    query: ExpressionText
    title: ExpressionText
    method: Method
    separator: str = Field(default=MULTI_SEPARATOR, min_length=1)

    @property
    def expression_texts(self) -> Sequence[str]:
        """The query, then the title."""
        return (self.query, self.title)

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        """Returns the measure of each row."""
        query, title = terms.terms_of(inputs[0], inputs[1], self.separator, (self.where(0), self.where(1)))
        numbers = _MEASURES[self.method](query, title)
        return self.finished(np.where((query.lengths > 0) & (title.lengths > 0), numbers, np.nan))
