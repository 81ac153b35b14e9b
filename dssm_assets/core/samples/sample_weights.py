"""How much a positive sample counts in the loss: by what happened, and by how long ago.

Belongs here: the weight. Does not belong here: how often an item becomes a negative, which no weight changes
(`core/models/losses/log_q`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.samples.id_index import one_array
from dssm_assets.core.samples.specs import require_columns

_LEAST = float(np.finfo(np.float32).tiny)
"""No sample's weight is 0, however old it is: a batch of old ones still has a mean."""


@dataclass(frozen=True)
class SampleWeights:
    """weight = event_weights[event] * 2 ** (-age in days / half_life_days), age 1 on the eve of the evaluation day.

    Example: buy 3, a half-life of 2 days: a buy of three days before the evaluation day weighs 3 * 2 ** -1.5 = 1.06.

    Attributes:
        event_weights: of events, 1 for the others.
        half_life_days: None: age does not matter.
        window_days: days of the window.
    """

    event_weights: Mapping[str, float] = field(default_factory=dict)
    half_life_days: float | None = None
    window_days: int = 1

    @property
    def columns(self) -> list[str]:
        """The columns of positive_sample that are read."""
        return [col.EVENT] if self.event_weights else []

    def of(self, positive_sample: pa.Table, day: int) -> npt.NDArray[np.float32]:
        """Returns the weight of every row of a day, 0 the oldest, float32 above 0.

        Raises:
            SchemaError: there is no column of events, and they are needed.
        """
        weights = np.ones(positive_sample.num_rows)
        if self.event_weights:
            require_columns("table positive_sample", positive_sample.column_names, self.columns)
            names = pa.array(list(self.event_weights), pa.string())
            place = pc.index_in(one_array(positive_sample.column(col.EVENT)).cast(pa.string()), value_set=names)
            weights = np.array([*self.event_weights.values(), 1.0])[pc.fill_null(place, len(names)).to_numpy()]
        if self.half_life_days is not None:
            weights = weights * np.exp2(-(self.window_days - day) / self.half_life_days)
        return np.maximum(weights, _LEAST).astype(np.float32)
