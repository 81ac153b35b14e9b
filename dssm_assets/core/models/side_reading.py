"""What one tower reads of the embedding tables: its look-ups, and what each column of them is.

Belongs here: `SideReading`. Does not belong here: the tables (`embedding`), the layers (`tower`), which columns are held
(`held_columns`).

Letters: B rows, W width of what the layers read, H width of a held embedding.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from torch import Tensor, nn

from dssm_assets.core.models.embedding import EmbeddingTables, Lookup, WidthGroup
from dssm_assets.core.models.held_columns import HeldColumns
from dssm_assets.core.models.skip_start import coordinates, read_coordinates
from dssm_assets.core.models.tower_feature import TowerFeature
from dssm_assets.core.models.tower_input import TowerInput
from dssm_assets.core.models.tower_spec import TowerSpec


class SideReading(nn.Module):
    """The look-ups of one tower.

    Attributes:
        columns: which columns of a look-up the layers read, and which are held.
        width: of what the layers read, means of attention poolings included.
        taste_places: where in it the taste is: the pooled history, or what shares its embeddings.
        taste: what each of those places is a part of.
    """

    def __init__(
        self,
        spec: TowerSpec,
        tables: EmbeddingTables,
        singles: Sequence[TowerFeature],
        bags: Sequence[TowerFeature],
        *,
        taste: tuple[Container[int], Container[int]],
        attended: Sequence[TowerFeature] = (),
    ) -> None:
        """Notes how the tables are read.

        Args:
            spec: whose embedding may be held.
            tables: of both towers.
            singles: single-valued features, by column of a `TowerInput`.
            bags: by bag of it.
            taste: which of the singles and which of the bags are taste.
            attended: sub-features under attention poolings, whose means stand behind the look-up and are taste.
        """
        super().__init__()
        self._groups = tables.groups(singles, bags)
        self._learned_groups = tables.groups(singles, bags, without=spec.held_embedding)
        read = [*read_coordinates(self._groups, singles, bags), *coordinates(attended)]
        self.columns = HeldColumns(read, spec.held_embedding, spec.held_dim)
        self.width = len(self.columns.read)
        looked_up = sum(group.width for group in self._groups)
        of_taste = [*_places(self._groups, *taste), *range(looked_up, len(read))]
        self.taste_places = self.columns.places(of_taste)
        self.taste = [read[k] for k in of_taste if read[k][0] != spec.held_embedding]

    def lookup(
        self, tables: EmbeddingTables, inputs: TowerInput, tape: list[Lookup] | None, *, with_held: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Returns what the layers read [B, W], but for attention's means, and what is held [B, H], if it is asked for."""
        if with_held:
            return self.columns.split(tables.lookup(self._groups, inputs, tape))
        return tables.lookup(self._learned_groups, inputs, tape), None


def _places(groups: Sequence[WidthGroup], singles: Container[int], bags: Container[int]) -> list[int]:
    """Returns the columns of these features in what a look-up by these groups returns."""
    places, begin = [], 0
    for group in groups:
        places += [begin + place for place in group.places(singles, bags)]
        begin += group.width
    return places
