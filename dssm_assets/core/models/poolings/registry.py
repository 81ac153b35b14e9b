"""Which pooling each kind in `model.poolings` means. A new pooling is one class and one line here.

From outside the package: `POOLINGS["my_pooling"] = MyPooling`, in a plug-in (docs/platform.md).
"""

from __future__ import annotations

from typing import Final

from dssm_assets.core.config.model import Pooling, PoolingKind
from dssm_assets.core.models.poolings.eventwise import EventwisePooling, SequencePooling
from dssm_assets.core.models.poolings.history_pooling import HistoryPooling, MeanPooling, RecencyPooling, RootPooling

POOLINGS: Final[dict[str, type[HistoryPooling]]] = {
    PoolingKind.MEAN: MeanPooling,
    PoolingKind.ROOT: RootPooling,
    PoolingKind.RECENCY: RecencyPooling,
    PoolingKind.ATTENTION: EventwisePooling,
    PoolingKind.SEQUENCE: SequencePooling,
}


def make_pooling(settings: Pooling) -> HistoryPooling:
    """Returns the pooling that an entry of `model.poolings` describes."""
    return POOLINGS[settings.kind](settings)
