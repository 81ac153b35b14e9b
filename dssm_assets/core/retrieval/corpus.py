"""Items ready to be searched, any number of times.

Belongs here: `Corpus` and the forms of its vectors. Does not belong here: the search (`exact.py`).

Shapes: I items, D vector dimension.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dssm_assets.core.config.model import Similarity
from dssm_assets.core.retrieval.coarse import ByteCoarse, FloatCoarse, lengths
from dssm_assets.core.retrieval.metrics import Metric
from dssm_assets.core.retrieval.vectors import Vectors, check_vectors, scaled


class Corpus:
    """Items ready to be searched, any number of times: checked, of unit length for cosine, with their coarse forms."""

    def __init__(
        self,
        item_vectors: NDArray[np.floating[Any]],
        metric: Similarity | Metric,
        item_ids: Any = None,
        *,
        is_checked: bool = False,
    ) -> None:
        """Checks the items, unless they were, and brings them into shape.

        Raises:
            InputError: for an empty corpus, NaN, infinite or zero vectors, naming how many and the first ids.
        """
        self.metric = Metric.of(metric)
        if not is_checked:
            check_vectors({"item": (item_vectors, item_ids)})
        self.vectors = scaled(item_vectors, self.metric)

    def __len__(self) -> int:
        """Returns I."""
        return len(self.vectors)

    @cached_property
    def by_dimension(self) -> Vectors:
        """Returns the items as float32 [D, I]."""
        return np.ascontiguousarray(self.vectors.T)

    @cached_property
    def float_coarse(self) -> FloatCoarse:
        """Returns the items for products in float32."""
        return FloatCoarse(self.vectors, self.metric, self.longest)

    @cached_property
    def byte_coarse(self) -> ByteCoarse:
        """Returns the items for products of bytes."""
        return ByteCoarse(self.vectors)

    @cached_property
    def longest(self) -> float:
        """Returns the length of the longest vector."""
        return float(lengths(self.vectors).max())
