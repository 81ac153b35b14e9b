"""The embedding that stands beside the towers: what a look-up read of it goes to the end of the vector as it is.

    user = (layers of all else, codes of the past)     item = (layers of all else, own code)

so that the inner product is that of the towers plus that of the codes: what past items foretell in closed form is whole
from the start, and the towers learn what it leaves open.

Belongs here: which columns of a look-up are which. Does not belong here: the codes (`training/history_start`), the layers
(`tower`).

Letters: B rows, W width of a look-up, H width of the held embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dssm_assets.core.models.skip_start import Coordinate


class HeldColumns(nn.Module):
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
