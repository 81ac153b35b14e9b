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

from dssm_assets.core.arrays.bags import Bags
from dssm_assets.core.arrays.ragged import row_of_value
from dssm_assets.core.config.model import PoolingKind
from dssm_assets.core.file_names import BundleFile
from dssm_assets.core.models.history_pooling import reach
from dssm_assets.core.models.tower_input import TowerInput
from dssm_assets.core.models.tower_spec import HistoryView, Side, TowerFeature, TowerSpec

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
    rows = row_of_value(bag.offsets)
    places = np.arange(len(bag.values), dtype=np.int64) - bag.offsets[rows]
    indices[rows, places], weights[rows, places] = bag.values, bag.weights
    return indices, weights


FORMAT: Final = 1

_HISTORY_RULES: Final = {
    PoolingKind.MEAN: "history",
    PoolingKind.ROOT: "root",
    PoolingKind.RECENCY: "recency",
    PoolingKind.ATTENTION: "attention",
}
_RULES: Final = {
    "index": "An embedding index comes from the feature's encoded value by feature_config.parquet and "
    "feature_counts.parquet; 0 is missing. A context feature that is not known is 0.",
    "padding": "length may differ between calls and between features; a place without a value has index 0 and weight 0.",
    "mean": "A multi-valued feature without weights of its own: values of index 0 are left out, each of the n that remain "
    "has weight 1 / n.",
    "weighted": "A feature with is_weighted: a value of weight w has weight w / sum(|w|) over the values whose index is not 0.",
    "history": "The last `length` positive events of the user (history.poolings), each sub-feature as a mean over them; with a "
    "half-life of h days an event that is d days older than the newest weighs 2 ** (-d / h) before the weights of the present "
    "values are divided by their sum, otherwise all weigh the same.",
    "root": "As history, but the weights of the present values are divided by the root of their sum.",
    "recency": "As history, but an event that r events are newer than weighs exp(-r / scale) before the weights of the present "
    "values are divided by their sum.",
    "sqrt_repeats": "Where a pooling says so, the weights of the present values are first made such that those of one value sum to "
    "the root of what they summed to.",
    "attention": "The last `length` positive events of which at least one sub-feature is present, in the same place for every "
    "sub-feature of the pooling; weight 1 where there is an event, 0 where there is none. The tower weighs them itself.",
    "prior": "The item tower does not know an item's prior: it stands behind the vectors in item_vectors.arrow, and the user "
    "tower puts a 1 behind its own, so that the inner product adds it.",
    IS_EMPTY_HISTORY: "1.0 where the user has no event at all, else 0.0.",
}


def describe_towers(spec: TowerSpec) -> dict[str, Any]:
    """Returns the content of towers.json; `spec` in it is the whole specification of the towers as it was trained."""
    of_user = spec.user_vector_width // spec.num_interests
    return {
        "format": FORMAT,
        "towers": {
            "user": {
                "file": BundleFile.USER_TOWER,
                "inputs": _inputs(spec, user_layout(spec)),
                "output": _output(spec, [spec.num_interests, of_user] if spec.num_interests > 1 else [of_user]),
            },
            "item": {
                "file": BundleFile.ITEM_TOWER,
                "inputs": _inputs(spec, item_layout(spec)),
                "output": _output(spec, [spec.output_dim]),
            },
        },
        "history": _history(spec),
        "rules": _RULES,
        "spec": spec.model_dump(mode="json"),
    }


def _history(spec: TowerSpec) -> dict[str, Any]:
    described: dict[str, Any] = {"features": [feature.name for feature in spec.sequences]}
    if not spec.poolings:  # the one mean that the two keys of the model section describe
        described |= {"length": spec.history_length, "half_life_days": spec.history_half_life_days}
    return described | {"poolings": [_pooling(view) for view in spec.history_views]}


def _pooling(view: HistoryView) -> dict[str, Any]:
    pooling = view.pooling
    described: dict[str, Any] = {"rule": _HISTORY_RULES[pooling.kind], "length": reach(pooling)}
    if pooling.sqrt_repeats:
        described["sqrt_repeats"] = True
    if pooling.kind is PoolingKind.RECENCY:
        described["scale"] = pooling.scale
    elif pooling.kind is not PoolingKind.ATTENTION:
        described["half_life_days"] = pooling.half_life_days
    return described | {"features": [feature.name for feature in view.features]}


def _inputs(spec: TowerSpec, layout: TowerLayout) -> list[dict[str, Any]]:
    """Returns the inputs in the order of the model's."""
    described: dict[str, dict[str, Any]] = {
        SINGLES: {
            "type": "int64",
            "shape": ["batch", len(layout.singles)],
            "holds": "embedding indices of the single-valued features, one per column",
            "features": [_feature(feature) for feature in layout.singles],
        },
        IS_EMPTY_HISTORY: {"type": "float32", "shape": ["batch"], "holds": _RULES[IS_EMPTY_HISTORY]},
    }
    rules = {feature: _HISTORY_RULES[view.pooling.kind] for view in spec.history_views for feature in view.features}
    for feature in layout.padded:
        rule = rules.get(feature, "weighted" if feature.is_weighted else "mean")
        shape = ["batch", layout.length_of(feature)]
        indices, weights = indices_of(feature.name), weights_of(feature.name)
        described[indices] = {"type": "int64", "shape": shape, "holds": "embedding indices", "feature": _feature(feature)}
        described[weights] = {"type": "float32", "shape": shape, "holds": f"weights of {indices}", "rule": rule}
    return [{"name": name, **described[name]} for name in layout.input_names]


def _feature(feature: TowerFeature) -> dict[str, Any]:
    return {
        "name": feature.name,
        "side": feature.side.value,
        "num_embeddings": feature.num_embeddings,
        "is_multi": feature.is_multi,
        "is_weighted": feature.is_weighted,
    }


def _output(spec: TowerSpec, shape: list[int]) -> dict[str, Any]:
    is_unit = spec.is_unit
    return {
        "name": OUTPUT,
        "type": "float32",
        "shape": ["batch", *shape],
        "holds": "vectors of length 1" if is_unit else "vectors",
        "compared_by": "inner product",
        "has_one_behind": shape[-1] > spec.output_dim,
    }
