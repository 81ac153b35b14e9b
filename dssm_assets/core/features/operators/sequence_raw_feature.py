"""sequence_raw_feature: a plain sequence of numbers, or of vectors, from one input.

Belongs here: a sequence that stands alone. Does not belong here: several sequences of one past (`sequence_feature.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pyarrow as pa
from pydantic import Field

from dssm_assets.core.features import lists, sequences
from dssm_assets.core.features.operators.raw_feature import RawFeature
from dssm_assets.core.features.operators.sequence_feature import DELIMITER


class SequenceRawFeature(RawFeature):
    """The numbers of a row in order, one per element, or with value_dim n a vector of n numbers per element.

    A missing element keeps its place: it is the default, or null.

    Attributes:
        sequence_length: elements that are kept, the first ones or with oldest_first the last (0: all).
        sequence_delim: what stands between the elements of a text.
        oldest_first: elements ascend in time.
    """

    feature_type: Literal["sequence_raw_feature"] = "sequence_raw_feature"  # type: ignore[assignment]
    sequence_length: int = Field(default=0, ge=0)
    sequence_delim: str = Field(default=DELIMITER, min_length=1)
    oldest_first: bool = False

    @property
    def is_multi(self) -> bool:
        """Always true."""
        return True

    @property
    def depth(self) -> int:
        """1, or 2 for a sequence of vectors."""
        return 2 if self.value_dim > 1 else 1

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        """Returns the numbers of each row's elements; a null row stays null."""
        array = sequences.as_lists(inputs[0], self.sequence_delim, self.where(0))
        flat, offsets = lists.flatten(array)
        positions, offsets = sequences.kept(offsets, self.sequence_length, self.oldest_first)
        flat = flat if positions is None else flat.take(pa.array(positions))
        return lists.build(self.values_of(flat), offsets, lists.null_mask(array))
