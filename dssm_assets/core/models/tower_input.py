"""The input of a tower for a batch of rows, and how it is read from tables of embedding indices.

Letters: B rows, F single-valued features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.arrays.bags import Bags, mean_bags, weighted_bags
from dssm_assets.core.arrays.event_sequences import EventSequences
from dssm_assets.core.arrays.ragged import IntArray, offsets_of, ranges
from dssm_assets.core.arrays.table_view import TableView
from dssm_assets.core.columns import feature_weights
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSide, TowerSpec


@dataclass(frozen=True)
class TowerInput:
    """Embedding indices of B rows.

    Attributes:
        singles: indices of the single-valued features, in the order of the specification [B, F].
        bags: one per multi-valued feature, then one per pooling and sub-feature of the history.
        is_empty_history: 1.0 for a row without history, else 0.0 [B]; None for a tower that reads no history.
        sequences: the events for each pooling of kind sequence, which several rows may share.
    """

    singles: IntArray
    bags: tuple[Bags, ...] = ()
    is_empty_history: npt.NDArray[np.float32] | None = None
    sequences: tuple[EventSequences, ...] = ()

    def __len__(self) -> int:
        return len(self.singles)


@dataclass(frozen=True)
class HistoryInput:
    """What the user tower reads of B histories.

    Attributes:
        bags: of every pooling but those of kind sequence, in the order of `TowerSpec.history_views`; within a pooling one per
            sub-feature.
        sequences: of every pooling of kind sequence.
        is_empty: 1.0 for a row without history, else 0.0 [B]; None for a tower that reads no history.
    """

    bags: tuple[Bags, ...] = ()
    sequences: tuple[EventSequences, ...] = ()
    is_empty: npt.NDArray[np.float32] | None = None

    def join(self, features: TowerInput) -> TowerInput:
        """Returns the user tower's input of rows with these features and these histories."""
        return TowerInput(features.singles, features.bags + self.bags, self.is_empty, self.sequences)


class SideReader:
    """Reads the features of one tower (without history) from one table."""

    def __init__(self, table: pa.Table, name: str, features: Sequence[TowerFeature]) -> None:
        """Checks the features' columns."""
        self._view = TableView(table, name, feature_columns(features))
        check_indices(self._view, name, features)
        _check_weights(self._view, name, features)
        self._singles = [feature.name for feature in features if not feature.is_multi]
        self._multis = [feature for feature in features if feature.is_multi]

    def read(self, rows: IntArray) -> TowerInput:
        """Returns the features of these rows of the table, in this order."""
        selection = self._view.select(rows)
        singles = np.zeros((len(rows), len(self._singles)), np.int64)  # [B, F]
        for position, name in enumerate(self._singles):
            singles[:, position] = self._view.read_column(name, selection)
        bags = []
        for feature in self._multis:
            values, offsets = self._view.read_list(feature.name, selection)
            if feature.is_weighted:
                weights, _ = self._view.read_list(feature_weights(feature.name), selection)
                bags.append(weighted_bags(values, offsets, weights))
            else:
                bags.append(mean_bags(values, offsets))
        return TowerInput(singles, tuple(bags))


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
                    "build the table with the feature configuration of this model",
                )
            )
    SchemaError.raise_if(faults)


def _check_weights(view: TableView, table: str, features: Sequence[TowerFeature]) -> None:
    """Checks that every value of a weighted feature has one finite weight.

    Raises:
        SchemaError: with one fault per feature whose weights differ in number from its values or are not finite.
    """
    faults = []
    for feature in (feature for feature in features if feature.is_weighted):
        column = feature_weights(feature.name)
        where, remedy = f"table {table}, column {column}", "build the feature and its weights from the same values"
        pairs = zip(view.lengths(feature.name), view.lengths(column), strict=True)
        differing = sum(int(np.count_nonzero(values != weights)) for values, weights in pairs)
        num_not_finite = sum(int(np.count_nonzero(~np.isfinite(block))) for block in view.blocks(column))
        if differing:
            faults.append(
                Fault(where, f"as many weights as {feature.name} has values", f"another number in {differing} rows", remedy)
            )
        elif num_not_finite:
            faults.append(Fault(where, "finite weights", f"{num_not_finite} that are NaN or infinite", remedy))
    SchemaError.raise_if(faults)


def merge_sides(features: Sequence[TowerFeature], sides: Mapping[TowerSide, TowerInput]) -> TowerInput:
    """Returns the input of one tower from sides that were read separately, with the features in the given order.

    Args:
        features: of all sides, in the order of the specification; those of one side are in the same order as in its input.
    """
    columns = {side: iter(inputs.singles.T) for side, inputs in sides.items()}
    bags = {side: iter(inputs.bags) for side, inputs in sides.items()}
    merged = np.empty((len(next(iter(sides.values()))), sum(not feature.is_multi for feature in features)), np.int64)  # [B, F]
    for position, feature in enumerate(feature for feature in features if not feature.is_multi):
        merged[:, position] = next(columns[feature.side])
    return TowerInput(merged, tuple(next(bags[feature.side]) for feature in features if feature.is_multi))


def add_missing_context(inputs: TowerInput, spec: TowerSpec) -> TowerInput:
    """Returns the input of user features with missing context features where the tower expects them."""
    context = spec.features_of(TowerSide.CONTEXT)
    empty = Bags(np.zeros(0, np.int64), np.zeros(len(inputs) + 1, np.int64), np.zeros(0, np.float32))
    singles = np.zeros((len(inputs), sum(not feature.is_multi for feature in context)), np.int64)
    missing = TowerInput(singles, tuple(empty for feature in context if feature.is_multi))
    features = spec.features_of(TowerSide.USER, TowerSide.CONTEXT)
    return merge_sides(features, {TowerSide.USER: inputs, TowerSide.CONTEXT: missing})


def slice_rows(inputs: TowerInput, start: int, stop: int) -> TowerInput:
    """Returns rows start .. stop - 1, or as many of these as exist."""
    is_empty = inputs.is_empty_history
    return TowerInput(
        inputs.singles[start:stop],
        tuple(_slice_bag(bag, start, stop) for bag in inputs.bags),
        None if is_empty is None else is_empty[start:stop],
        tuple(events.rows(start, stop) for events in inputs.sequences),
    )


def select_rows(inputs: TowerInput, rows: IntArray) -> TowerInput:
    """Returns these rows of an input without history, in this order; a row may occur several times."""
    return TowerInput(inputs.singles[rows], tuple(_select_bag_rows(bag, rows) for bag in inputs.bags))


def concatenate_rows(first: TowerInput, second: TowerInput) -> TowerInput:
    """Returns the rows of the first input, then those of the second. Both are of a tower without history."""
    bags = tuple(_concatenate_bags(a, b) for a, b in zip(first.bags, second.bags, strict=True))
    return TowerInput(np.concatenate([first.singles, second.singles]), bags)


def hide_features(
    inputs: TowerInput, is_hidden: npt.NDArray[np.bool_], single_columns: Sequence[int], bag_columns: Sequence[int]
) -> TowerInput:
    """Returns a copy in which the given features are missing in some rows.

    Args:
        inputs: not changed.
        is_hidden: whether a row's features become missing [B].
    """
    singles = inputs.singles.copy()
    columns = np.asarray(single_columns, np.int64)
    singles[:, columns] = np.where(is_hidden[:, None], 0, singles[:, columns])
    bags = tuple(_empty_rows(bag, is_hidden) if k in bag_columns else bag for k, bag in enumerate(inputs.bags))
    return replace(inputs, singles=singles, bags=bags)


def _slice_bag(bag: Bags, start: int, stop: int) -> Bags:
    offsets = bag.offsets[start : stop + 1]
    values = slice(offsets[0], offsets[-1])
    return Bags(bag.values[values], offsets - offsets[0], bag.weights[values])


def _concatenate_bags(first: Bags, second: Bags) -> Bags:
    return Bags(
        np.concatenate([first.values, second.values]),
        np.concatenate([first.offsets, first.offsets[-1] + second.offsets[1:]]),
        np.concatenate([first.weights, second.weights]),
    )


def _empty_rows(bag: Bags, is_hidden: npt.NDArray[np.bool_]) -> Bags:
    lengths = np.diff(bag.offsets)
    kept = np.repeat(~is_hidden, lengths)
    return Bags(bag.values[kept], offsets_of(np.where(is_hidden, 0, lengths)), bag.weights[kept])


def _select_bag_rows(bag: Bags, rows: IntArray) -> Bags:
    starts, ends = bag.offsets[rows], bag.offsets[rows + 1]
    positions = ranges(starts, ends - starts)
    return replace(bag, values=bag.values[positions], offsets=offsets_of(ends - starts), weights=bag.weights[positions])
