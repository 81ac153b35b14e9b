"""Why an item is in a merged list: what its log-odds are the sum of, and which of the user's items and events carry it."""

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
"""Items whose events are removed one after the other: each takes a run of the user tower."""


@dataclass(frozen=True)
class Reasons:
    """Why an item is in a merged list.

    Attributes:
        signals: what its log-odds are the sum of: `intercept`, and what each `channel.signal` adds to it (`contributions` of core/channels/reasons.py).
        goes_with: the user's items that are most similar to it as neighbors, best first.
        without: an item of the user's latest events -> how much the similarity of vectors changes if its events had not been; the changes
            that are largest.
    """

    signals: dict[str, float]
    goes_with: list[Id]
    without: list[tuple[Id, float]]

    def describe(self, names: Callable[[Sequence[Id]], Sequence[Any]] = list) -> str:
        """Returns what channels add, largest first, and what carries it, as a line of text; `names` turns ids into names."""
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
    """Returns why each item [n] is in the merged list of a user."""
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
