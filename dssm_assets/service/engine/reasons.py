"""Explains why an item is in a merged list: by the parts of its log-odds, and by the user's items and events that carry it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from dssm_assets.core.channels.channel import NearestItems, OwnItems
from dssm_assets.core.channels.reasons import CARRIERS, describe_reasons
from dssm_assets.core.retrieval.exact import score_interests
from dssm_assets.core.retrieval.item_filter import AllowedItems
from dssm_assets.core.retrieval.vectors import Metric
from dssm_assets.service.engine.bundle_reader import Bundle
from dssm_assets.service.engine.channels import BundleChannels
from dssm_assets.service.engine.id_rows import Id
from dssm_assets.service.engine.request_encoder import RequestUser, UserTower

MOST_REMOVED: Final = 10
"""At most so many items are tested by removing their events. Each test runs the user tower once."""


@dataclass(frozen=True)
class Reasons:
    """The reasons why an item is in a merged list.

    Attributes:
        signals: the parts of its log-odds: `intercept`, and the part of each `channel.signal` (`contributions` of
            core/channels/reasons.py).
        goes_with: the user's items most similar to it as neighbors, best first.
        without: pairs of an item of the user's latest events, and the change of the similarity of vectors without this item's events.
            Only the largest changes.
    """

    signals: dict[str, float]
    goes_with: list[Id]
    without: list[tuple[Id, float]]

    def describe(self, names: Callable[[Sequence[Id]], Sequence[Any]] = list) -> str:
        """Writes a line of text: the channels' parts, largest first, and the items that carry the item. `names` turns ids into names."""
        carried = ", ".join(map(str, names([item for item, change in self.without if change < 0])))
        return describe_reasons(self.signals, names(self.goes_with)) + (f"; near by {carried}" if carried else "")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def find_reasons(
    bundle: Bundle,
    channels: BundleChannels,
    tower: UserTower,
    user: RequestUser,
    nearest: NearestItems,
    allowed: AllowedItems | None,
    item_ids: list[Id],
) -> list[Reasons]:
    """Returns the reasons why each item [n] is in a user's merged list."""
    own: OwnItems = user.read_own()
    rows = np.array([bundle.items.find_row(item) for item in item_ids], np.int64)
    sent = [bundle.items.find_row(item) for item in user.lists.get("item_ids", ())]
    events, vectors = tower.compute_without(user, sent, MOST_REMOVED)
    interests = vectors.reshape(len(vectors), -1, bundle.dims)
    scores = score_interests(interests, bundle.item_vectors, np.tile(rows, (len(vectors), 1)), Metric.IP)  # [1 + events, n]
    change = scores[1:] - scores[0]
    order = np.argsort(-np.abs(change), axis=0, kind="stable")[:CARRIERS]
    names = bundle.items.ids_at(events)
    return [
        Reasons(signals, bundle.items.ids_at(similar), [(names[e], float(change[e, n])) for e in order[:, n]])
        for n, (signals, similar) in enumerate(channels.explain(own, nearest, allowed, rows))
    ]
