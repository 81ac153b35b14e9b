"""The inputs of an exported tower: their names and order, and filling them from the rows that the towers read.

Belongs here: `TowerLayout` and padding. Does not belong here: the export (`tower_export.py`) and the words that explain
the inputs to others (`tower_description.py`). Needs numpy alone, so that whoever serves needs no torch.

An exported tower takes plain arrays. Every single-valued feature is a column of `singles`; every multi-valued feature
and every sub-feature of the history is a pair of arrays of one width, `indices/<feature>` and `weights/<feature>`. The
weights already are those of the pooling, so the tower only adds up; a place without a value has index 0 and weight 0. Where
the tower weighs past items itself, the sub-features of one pooling share one `weights/<first of them>`: 1 where there is a
past item, else 0.

Letters: B rows, F single-valued features, L width of a padded feature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dssm_assets.core.models.bags import Bags, row_of
from dssm_assets.core.models.tower_feature import Side, TowerFeature
from dssm_assets.core.models.tower_input import TowerInput
from dssm_assets.core.models.tower_spec import TowerSpec

SINGLES: Final = "singles"
IS_EMPTY_HISTORY: Final = "is_empty_history"
OUTPUT: Final = "vectors"

Feed = dict[str, npt.NDArray[Any]]


def indices_of(feature: str) -> str:
    """Returns the input that holds the embedding indices of a padded feature."""
    return f"indices/{feature}"


def weights_of(feature: str) -> str:
    """Returns the input that holds the weights of a padded feature."""
    return f"weights/{feature}"


@dataclass(frozen=True)
class TowerLayout:
    """The inputs of one tower.

    Attributes:
        singles: the single-valued features, by column of `singles`.
        bags: the multi-valued features, then the sub-features of the history under each of its poolings.
        attended: the sub-features of the history under each pooling whose weights the tower learns.
        has_history: whether the tower asks for `is_empty_history`.
    """

    singles: tuple[TowerFeature, ...]
    bags: tuple[TowerFeature, ...]
    attended: tuple[tuple[TowerFeature, ...], ...] = ()
    has_history: bool = False

    @property
    def padded(self) -> tuple[TowerFeature, ...]:
        """The features that have an input of indices, in the order of the bags of a `TowerInput`."""
        return (*self.bags, *(feature for features in self.attended for feature in features))

    @property
    def weighted(self) -> tuple[TowerFeature, ...]:
        """Those that have an input of weights."""
        return (*self.bags, *(features[0] for features in self.attended))

    def length_of(self, feature: TowerFeature) -> str:
        """Returns what to call the width of a padded feature; the sub-features of one attention pooling have one width."""
        owner = next((features[0] for features in self.attended if feature in features), feature)
        return f"length of {owner.name}"

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs, in order: singles, all indices, all weights, is_empty_history."""
        names = [SINGLES] if self.singles else []
        names += [indices_of(feature.name) for feature in self.padded]
        names += [weights_of(feature.name) for feature in self.weighted]
        return tuple([*names, IS_EMPTY_HISTORY] if self.has_history else names)

    def feed(self, inputs: TowerInput) -> Feed:
        """Returns input name -> array for these rows; every padded feature is as wide as its longest row, at least 1."""
        feed: Feed = {SINGLES: np.ascontiguousarray(inputs.singles, np.int64)} if self.singles else {}
        weighted = {feature.name for feature in self.weighted}
        for feature, bag in zip(self.padded, inputs.bags, strict=True):
            feed[indices_of(feature.name)], weights = padded(bag)
            if feature.name in weighted:
                feed[weights_of(feature.name)] = weights
        if inputs.is_empty_history is not None:
            feed[IS_EMPTY_HISTORY] = np.asarray(inputs.is_empty_history, np.float32)
        return feed


def user_layout(spec: TowerSpec) -> TowerLayout:
    """Returns the inputs of the user tower: user and context features and the history."""
    features = spec.of(Side.USER, Side.CONTEXT)
    bags = [feature for feature in features if feature.is_multi]
    return TowerLayout(
        tuple(feature for feature in features if not feature.is_multi),
        (*bags, *spec.pooled_features),
        tuple(view.features for view in spec.attention_views),
        has_history=bool(spec.sequences),
    )


def item_layout(spec: TowerSpec) -> TowerLayout:
    """Returns the inputs of the item tower."""
    features = spec.of(Side.ITEM)
    return TowerLayout(
        tuple(feature for feature in features if not feature.is_multi),
        tuple(feature for feature in features if feature.is_multi),
    )


def padded(bag: Bags) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Returns indices and weights [B, L] of ragged rows, padded with index 0 and weight 0.

    Example: rows [3, 4] and [] become [[3, 4], [0, 0]] with weights [[.5, .5], [0, 0]].
    """
    lengths = np.diff(bag.offsets)
    shape = (len(lengths), max(1, int(lengths.max(initial=0))))
    indices, weights = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    rows = row_of(bag.offsets)
    places = np.arange(len(bag.values), dtype=np.int64) - bag.offsets[rows]
    indices[rows, places], weights[rows, places] = bag.values, bag.weights
    return indices, weights
