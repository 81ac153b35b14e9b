"""What a tower reads for a batch of rows, and reading it from tables of embedding indices.

Belongs here: `TowerInput`, `SideReader`, putting sides together and the checks that indices lie inside their tables and weights fit them. Does
not belong here: the history (`history`) and the vectors behind the indices (`embedding`).

Letters: B rows, F single-valued features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.arrays.bags import Bags, mean_bags, weighted_bags
from dssm_assets.core.arrays.ragged import IntArray, offsets_of
from dssm_assets.core.arrays.table_view import RowGather, TableView
from dssm_assets.core.columns import feature_weights
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.models.tower_spec import Side, TowerFeature


@dataclass(frozen=True)
class TowerInput:
    """Embedding indices of B rows.

    Attributes:
        singles: indices of the single-valued features, in the order of the specification [B, F].
        bags: one per multi-valued feature, then one per sub-feature of the history.
        is_empty_history: 1.0 where the row has no history [B]; None for a tower without history.
    """

    singles: IntArray
    bags: tuple[Bags, ...] = ()
    is_empty_history: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.singles)


SideValues: TypeAlias = tuple[npt.NDArray[Any], tuple[Bags, ...]]
"""Embedding indices of the single-valued features of one side [B, F], and its bags."""


class SideReader:
    """Reads the features of one tower (without history) from one table."""

    def __init__(self, table: pa.Table, name: str, features: Sequence[TowerFeature]) -> None:
        columns = feature_columns(features)
        self._view = TableView(table, name, columns)
        check_indices(self._view, name, features)
        _check_weights(self._view, name, features)
        self._singles = [feature.name for feature in features if not feature.is_multi]
        self._multis = [feature for feature in features if feature.is_multi]
        # One chunk is read as it lies, without the cost of noting where everything does: a request is such a table.
        is_cut = bool(features) and table.column(features[0].name).num_chunks > 1
        lists = [column for column in columns if column not in self._singles]
        self._gather = RowGather(table, flat=self._singles, lists=lists) if is_cut else None

    def read(self, rows: npt.NDArray[Any]) -> TowerInput:
        """Returns the features of these rows of the table, in this order."""
        singles, bags = self.values(rows)
        return TowerInput(singles.astype(np.int64, copy=False), bags)

    def values(self, rows: npt.NDArray[Any]) -> SideValues:
        """Returns the same before it is a tower's input, for `side_by_side`: singles of whatever integer type they have."""
        if self._gather is not None:
            at = self._gather.select(rows)
            return self._gather.take_flat(at), self._bags(partial(self._gather.take_list, at=at))
        selection = self._view.select(rows)
        singles = np.zeros((len(rows), len(self._singles)), np.int64)  # [B, F]
        for position, name in enumerate(self._singles):
            singles[:, position] = self._view.take(name, selection)
        return singles, self._bags(partial(self._view.take_list, selection=selection))

    def _bags(self, take_list: Callable[[str], tuple[npt.NDArray[Any], IntArray]]) -> tuple[Bags, ...]:
        bags = []
        for feature in self._multis:
            values, offsets = take_list(feature.name)
            if feature.is_weighted:
                bags.append(weighted_bags(values, offsets, take_list(feature_weights(feature.name))[0]))
            else:
                bags.append(mean_bags(values, offsets))
        return tuple(bags)


def feature_columns(features: Sequence[TowerFeature]) -> dict[str, pa.DataType]:
    """Returns the columns of features and their Arrow types: embedding indices, and the weights of weighted ones."""
    indices = {feature.name: pa.list_(pa.int32()) if feature.is_multi else pa.int32() for feature in features}
    return indices | {feature_weights(feature.name): pa.list_(pa.float32()) for feature in features if feature.is_weighted}


def check_indices(view: TableView, table: str, features: Sequence[TowerFeature]) -> None:
    """Checks that every index points into its feature's embedding table.

    Raises:
        SchemaError: with one fault per feature that has an index outside.
    """
    faults = []
    for feature in features:
        blocks = [block for block in view.blocks(feature.name) if len(block)]
        low = min((int(block.min()) for block in blocks), default=0)
        high = max((int(block.max()) for block in blocks), default=0)
        if low < 0 or high >= feature.num_embeddings:
            faults.append(
                Fault(
                    f"table {table}, column {feature.name}",
                    f"indices 0 .. {feature.num_embeddings - 1}",
                    f"{low} .. {high}",
                    "make the table with the feature configuration of this model",
                )
            )
    if faults:
        raise SchemaError(faults)


def _check_weights(view: TableView, table: str, features: Sequence[TowerFeature]) -> None:
    """Checks that every value of a weighted feature has one finite weight.

    Raises:
        SchemaError: with one fault per feature whose weights are fewer, more or not finite.
    """
    faults = []
    for feature in (feature for feature in features if feature.is_weighted):
        column = feature_weights(feature.name)
        where, remedy = f"table {table}, column {column}", "write a feature and its weights together"
        pairs = zip(view.lengths(feature.name), view.lengths(column), strict=True)
        differing = sum(int(np.count_nonzero(values != weights)) for values, weights in pairs)
        odd = sum(int(np.count_nonzero(~np.isfinite(block))) for block in view.blocks(column))
        if differing:
            faults.append(
                Fault(where, f"as many weights as {feature.name} has values", f"another number in {differing} rows", remedy)
            )
        elif odd:
            faults.append(Fault(where, "finite weights", f"{odd} others", remedy))
    if faults:
        raise SchemaError(faults)


def side_by_side(features: Sequence[TowerFeature], sides: Mapping[Side, SideValues]) -> TowerInput:
    """Returns the input of one tower whose sides were read apart, row by row, with the features in the given order.

    Args:
        features: of all sides, mixed as the specification has them.
        sides: of each side the values of its features, in the order that they have among `features`.
    """
    singles = [feature.side for feature in features if not feature.is_multi]
    joined = np.empty((len(next(iter(sides.values()))[0]), len(singles)), np.int64)  # [B, F]
    place, done = 0, dict.fromkeys(sides, 0)
    for side, run in groupby(singles):  # neighbours at once: a copy column by column costs as much as the reading
        width = len(list(run))
        joined[:, place : place + width] = sides[side][0][:, done[side] : done[side] + width]
        place, done[side] = place + width, done[side] + width
    bags = {side: iter(given) for side, (_, given) in sides.items()}
    return TowerInput(joined, tuple(next(bags[feature.side]) for feature in features if feature.is_multi))


def rows_between(inputs: TowerInput, start: int, stop: int) -> TowerInput:
    """Returns rows start .. stop - 1, or as many of them as there are."""
    is_empty = inputs.is_empty_history
    return TowerInput(
        inputs.singles[start:stop],
        tuple(_bag_between(bag, start, stop) for bag in inputs.bags),
        None if is_empty is None else is_empty[start:stop],
    )


def concatenated(first: TowerInput, second: TowerInput) -> TowerInput:
    """Returns the rows of both inputs, first before second. Both are of a tower without history."""
    bags = tuple(_stacked(a, b) for a, b in zip(first.bags, second.bags, strict=True))
    return TowerInput(np.concatenate([first.singles, second.singles]), bags)


def without_columns(
    inputs: TowerInput, is_hidden: npt.NDArray[np.bool_], single_columns: Sequence[int], bag_columns: Sequence[int]
) -> TowerInput:
    """Returns the input with the given features missing in the rows that are hidden.

    Args:
        inputs: left unchanged.
        is_hidden: rows whose features become missing [B].
        single_columns: positions among the single-valued features.
        bag_columns: positions among the bags.
    """
    singles = inputs.singles.copy()
    columns = np.asarray(single_columns, np.int64)
    singles[:, columns] = np.where(is_hidden[:, None], 0, singles[:, columns])
    bags = tuple(_emptied(bag, is_hidden) if k in bag_columns else bag for k, bag in enumerate(inputs.bags))
    return replace(inputs, singles=singles, bags=bags)


def _bag_between(bag: Bags, start: int, stop: int) -> Bags:
    offsets = bag.offsets[start : stop + 1]
    values = slice(offsets[0], offsets[-1])
    return Bags(bag.values[values], offsets - offsets[0], bag.weights[values])


def _stacked(first: Bags, second: Bags) -> Bags:
    return Bags(
        np.concatenate([first.values, second.values]),
        np.concatenate([first.offsets, first.offsets[-1] + second.offsets[1:]]),
        np.concatenate([first.weights, second.weights]),
    )


def _emptied(bag: Bags, is_hidden: npt.NDArray[np.bool_]) -> Bags:
    lengths = np.diff(bag.offsets)
    kept = np.repeat(~is_hidden, lengths)
    return Bags(bag.values[kept], offsets_of(np.where(is_hidden, 0, lengths)), bag.weights[kept])
