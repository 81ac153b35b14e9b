"""Where the skips of both towers start: at one and the same map, so that a history is near the items it holds at once.

Belongs here: what each column of a tower's input is a part of, and the weights with which the skips start. Does not belong
here: what a skip is (`tower`).

Every coordinate of an embedding that both towers read goes to an output of its own, as far as there are outputs, and the
poolings of one history are averaged. Towers that start apart must find a common language first, which takes long where
histories hold hundreds of items: on a grocery year this alone is worth a tenth of the hit rate
(docs/recall_experiments.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from dssm_assets.core.models.embedding import WidthGroup
from dssm_assets.core.models.tower_spec import TowerFeature

Coordinate: TypeAlias = tuple[str, int]
"""An embedding_name and a place in its vectors."""


def coordinates(features: Sequence[TowerFeature]) -> list[Coordinate]:
    """Returns what the columns of these features' vectors, side by side, are."""
    return [(feature.embedding_name, place) for feature in features for place in range(feature.embedding_dim)]


def read_coordinates(
    groups: Sequence[WidthGroup], singles: Sequence[TowerFeature], bags: Sequence[TowerFeature]
) -> list[Coordinate]:
    """Returns what the columns of a look-up by these groups are."""
    read = [[singles[k] for k in group.single_columns.tolist()] + [bags[k] for k in group.bag_columns] for group in groups]
    return [name for features in read for name in coordinates(features)]


def align_skips(
    user: nn.Linear | None, user_shared: Sequence[Coordinate], item: nn.Linear | None, item_shared: Sequence[Coordinate]
) -> None:
    """Lets both skips start as the same map.

    By hand: a history pooled twice over one embedding of width 2 and an item of it, 3 outputs. The item's skip is
    [[1, 0], [0, 1], [0, 0]], the user's [[.5, 0, .5, 0], [0, .5, 0, .5], [0, 0, 0, 0]].

    Args:
        user: the user tower's skip; None: it has none, and nothing is done.
        user_shared: what its input columns are.
        item: the item tower's skip.
        item_shared: what its input columns are.
    """
    if user is None or item is None:
        return
    known = set(user_shared)
    outputs = {name: place for place, name in enumerate(dict.fromkeys(name for name in item_shared if name in known))}
    with torch.no_grad():
        for skip, taste in ((user, user_shared), (item, item_shared)):
            counts = Counter(taste)
            skip.weight.zero_()
            for column, name in enumerate(taste):
                if outputs.get(name, skip.out_features) < skip.out_features:
                    skip.weight[outputs[name], column] = 1.0 / counts[name]


class FrozenColumns(nn.Module):
    """Which columns of one tower's look-up the layers read, and which are held.

    A past that is pooled in several ways holds its first; the others' columns of that embedding are left out.
    """

    read: Tensor
    held: Tensor

    def __init__(self, coordinates: Sequence[Coordinate], embedding: str | None, width: int) -> None:
        """Sorts the columns.

        Args:
            coordinates: what each column of the look-up is a part of [W].
            embedding: that is held; None: none is, and the layers read all.
            width: H.
        """
        super().__init__()
        of_it = [column for column, (name, _) in enumerate(coordinates) if name == embedding]
        self.register_buffer("read", _places(sorted(set(range(len(coordinates))) - set(of_it))), persistent=False)
        self.register_buffer("held", _places(of_it[:width]), persistent=False)
        self.is_none = embedding is None

    def places(self, columns: Sequence[int]) -> list[int]:
        """Returns where the layers find these columns of the look-up, without those that they do not read."""
        at = {column: place for place, column in enumerate(self.read.tolist())}
        return [at[column] for column in columns if column in at]

    def split(self, found: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns what the layers read of a look-up [B, W], and what is held of it [B, H], from which nothing is learned."""
        if self.is_none:
            return found, None
        return found.index_select(1, self.read), found.detach().index_select(1, self.held)


def beside(vectors: Tensor, held: Tensor | None) -> Tensor:
    """Returns the vectors [B, D - H] with what is held [B, H] behind each."""
    return vectors if held is None else torch.cat([vectors, held], dim=1)


def _places(places: Sequence[int]) -> Tensor:
    return torch.tensor(list(places), dtype=torch.long)
