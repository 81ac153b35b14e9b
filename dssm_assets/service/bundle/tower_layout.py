"""The inputs of an exported tower: their names and order, how to fill them, and towers.json, which explains them.

Imports no torch, because the recall service uses it.

An exported tower has plain arrays as inputs. Every single-valued feature is a column of `singles`. Every multi-valued feature and
every sub-feature of the history is a pair of arrays with equal shapes, `indices/<feature>` and `weights/<feature>`. Padding has
index 0 and weight 0. The weights of a pooling are inputs, so the tower only adds up. Poolings of kind attention and sequence compute
their weights in the tower; their sub-features share the input `weights/<first sub-feature>`: 1 for an item of the history, 0 for
padding. A pooling of kind sequence also has the input `seconds/<first sub-feature>`, the time of each item.

Letters: B rows, F single-valued features, L width of a padded feature.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.bags import Bags
from dssm_assets.core.arrays.ragged import row_of_value
from dssm_assets.core.config.model import Pooling, PoolingKind
from dssm_assets.core.file_names import BundleFile
from dssm_assets.core.models.poolings import make_pooling
from dssm_assets.core.models.tower_input import TowerInput
from dssm_assets.core.models.tower_spec import HistoryView, TowerFeature, TowerSide, TowerSpec

SINGLES: Final = "singles"
IS_EMPTY_HISTORY: Final = "is_empty_history"
OUTPUT: Final = "vectors"
FORMAT: Final = 1
"""Version of towers.json."""

Feed = dict[str, npt.NDArray[Any]]


def indices_input(feature: str) -> str:
    return f"indices/{feature}"


def weights_input(feature: str) -> str:
    return f"weights/{feature}"


def seconds_input(feature: str) -> str:
    return f"seconds/{feature}"


@dataclass(frozen=True)
class TowerLayout:
    """The inputs of one tower.

    Attributes:
        singles: the single-valued features, in the order of the columns of the input `singles`.
        bags: the multi-valued features, then the sub-features of the history for each pooling with fixed weights.
        attended: the sub-features of the history for each attention pooling.
        encoded: the sub-features of the history for each pooling of kind sequence.
        has_history: whether the tower has the input `is_empty_history`.
    """

    singles: tuple[TowerFeature, ...]
    bags: tuple[TowerFeature, ...]
    attended: tuple[tuple[TowerFeature, ...], ...] = ()
    encoded: tuple[tuple[TowerFeature, ...], ...] = ()
    has_history: bool = False

    @property
    def padded(self) -> tuple[TowerFeature, ...]:
        """Returns the features that have an input of indices, in order: the bags of a `TowerInput`, then its sequences."""
        return (*self.bags, *(feature for features in (*self.attended, *self.encoded) for feature in features))

    @property
    def weighted(self) -> tuple[TowerFeature, ...]:
        return (*self.bags, *(features[0] for features in (*self.attended, *self.encoded)))

    def length_name(self, feature: TowerFeature) -> str:
        """Names the second dimension of a padded feature. The sub-features of a learned pooling share a dimension."""
        owner = next((features[0] for features in (*self.attended, *self.encoded) if feature in features), feature)
        return f"length of {owner.name}"

    @property
    def input_names(self) -> tuple[str, ...]:
        """Returns the names of the inputs in order: singles, all indices, all weights, all seconds, is_empty_history."""
        names = [SINGLES] if self.singles else []
        names += [indices_input(feature.name) for feature in self.padded]
        names += [weights_input(feature.name) for feature in self.weighted]
        names += [seconds_input(features[0].name) for features in self.encoded]
        return tuple([*names, IS_EMPTY_HISTORY] if self.has_history else names)

    def feed(self, inputs: TowerInput) -> Feed:
        """Returns input name -> array for some rows. Each padded feature is as wide as its longest row, at least 1."""
        return self._fill(inputs)[0]

    def feed_each(self, inputs: TowerInput) -> Iterator[Feed]:
        """Yields the result of `feed` for each single row."""
        feed, bags = self._fill(inputs)
        widths = {name: np.maximum(np.diff(bag.offsets), 1).tolist() for name, bag in bags.items()}
        for row in range(len(inputs)):
            yield {
                name: values[row : row + 1, : widths[name][row]] if name in widths else values[row : row + 1]
                for name, values in feed.items()
            }

    def _fill(self, inputs: TowerInput) -> tuple[Feed, dict[str, Bags]]:
        feed: Feed = {SINGLES: np.ascontiguousarray(inputs.singles, np.int64)} if self.singles else {}
        bags, padded = list(inputs.bags), dict[str, Bags]()
        for features, sequence in zip(self.encoded, inputs.sequences, strict=True):
            events = sequence.select_rows(np.arange(len(inputs)))
            bags += [Bags(values, events.offsets, np.ones(len(values), np.float32)) for values in events.values]
            newest = events.offsets[1:][row_of_value(events.offsets)] - 1
            ages = Bags(events.seconds[newest] - events.seconds, events.offsets, np.ones(len(newest), np.float32))
            padded[name := seconds_input(features[0].name)] = ages
            feed[name] = pad_bags(ages)[0]
        weighted = {feature.name for feature in self.weighted}
        for feature, bag in zip(self.padded, bags, strict=True):
            padded[name := indices_input(feature.name)] = bag
            feed[name], weights = pad_bags(bag)
            if feature.name in weighted:
                padded[name := weights_input(feature.name)] = bag
                feed[name] = weights
        if inputs.is_empty_history is not None:
            feed[IS_EMPTY_HISTORY] = np.asarray(inputs.is_empty_history, np.float32)
        return feed, padded


def tower_layout(spec: TowerSpec, *, is_user: bool) -> TowerLayout:
    """Returns the inputs of the user or the item tower."""
    features = spec.features_of(*((TowerSide.USER, TowerSide.CONTEXT) if is_user else (TowerSide.ITEM,)))
    singles, bags = (tuple(feature for feature in features if feature.is_multi is wanted) for wanted in (False, True))
    if not is_user:
        return TowerLayout(singles, bags)
    return TowerLayout(
        singles,
        (*bags, *spec.pooled_features),
        tuple(view.features for view in spec.attention_views),
        tuple(view.features for view in spec.sequence_views),
        has_history=bool(spec.sequences),
    )


def pad_bags(bag: Bags) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Pads ragged rows with index 0 and weight 0. Returns indices and weights, [B, L] each.

    Example: rows [3, 4] and [] become [[3, 4], [0, 0]] with weights [[.5, .5], [0, 0]].
    """
    lengths = np.diff(bag.offsets)
    shape = (len(lengths), max(1, int(lengths.max(initial=0))))
    indices, weights = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    rows = row_of_value(bag.offsets)
    positions = np.arange(len(bag.values), dtype=np.int64) - bag.offsets[rows]
    indices[rows, positions], weights[rows, positions] = bag.values, bag.weights
    return indices, weights


_RULES: Final = {
    "index": "feature_config.parquet and feature_counts.parquet map the feature's encoded value to its embedding index; 0 means "
    "missing. An unknown context feature has index 0.",
    "padding": "length may differ between calls and between features; padding has index 0 and weight 0.",
    "mean": "A multi-valued feature without weights: values with index 0 are dropped, each of the n remaining values has weight "
    "1 / n.",
    "weighted": "A feature with is_weighted: a value of weight w has weight w / sum(|w|) over the values whose index is not 0.",
    "history": "The last `length` positive events of the user (history.poolings), each sub-feature as a weighted mean over them. "
    "With a half-life of h days, an event that is d days older than the newest has weight 2 ** (-d / h), otherwise 1; then the "
    "weights of the values whose index is not 0 are divided by their sum.",
    "root": "As history, but the weights are divided by the square root of their sum.",
    "recency": "As history, but an event with r newer events has weight exp(-r / scale) before the weights are divided by their "
    "sum.",
    "sqrt_repeats": "If a pooling has it, the weights of equal values are first scaled so that they sum to the square root of "
    "their sum.",
    "attention": "The last `length` positive events with at least one sub-feature whose index is not 0, at the same position for "
    "every sub-feature of the pooling; weight 1 for an event, 0 for padding. The tower computes the attention weights itself.",
    "sequence": "As attention, oldest event first and padding behind the newest. seconds/<first sub-feature> has the whole seconds "
    "from each event to the newest one, 0 for padding; an event at t milliseconds happened in second floor(t / 1000).",
    "prior": "The item tower does not compute an item's prior: item_vectors.arrow has it as the last entry of each vector, and the "
    "user tower appends a 1 to its vectors, so that the inner product adds the prior.",
    IS_EMPTY_HISTORY: "1.0 if the user has no event at all, else 0.0.",
}


def describe_towers(spec: TowerSpec) -> dict[str, Any]:
    """Returns the content of towers.json. Its key `spec` is the specification of the trained towers."""
    user_dims = spec.user_vector_width // spec.num_interests
    user_shape = [spec.num_interests, user_dims] if spec.num_interests > 1 else [user_dims]
    history: dict[str, Any] = {"features": [feature.name for feature in spec.sequences]}
    if not spec.poolings:  # then there is one mean, over model.history_length events
        history |= {"length": spec.history_length, "half_life_days": spec.history_half_life_days}
    # Poolings of plug-ins are described by the docstrings of their classes.
    outside = [view.pooling for view in spec.history_views if view.pooling.kind not in set(PoolingKind)]
    return {
        "format": FORMAT,
        "towers": {
            "user": _describe_tower(spec, BundleFile.USER_TOWER, tower_layout(spec, is_user=True), user_shape),
            "item": _describe_tower(spec, BundleFile.ITEM_TOWER, tower_layout(spec, is_user=False), [spec.output_dim]),
        },
        "history": history | {"poolings": [_describe_pooling(view) for view in spec.history_views]},
        "rules": _RULES | {pooling.kind: inspect.getdoc(type(make_pooling(pooling))) or "" for pooling in outside},
        "spec": spec.model_dump(mode="json"),
    }


def _history_rule(pooling: Pooling) -> str:
    return "history" if pooling.kind is PoolingKind.MEAN else str(pooling.kind)


def _describe_pooling(view: HistoryView) -> dict[str, Any]:
    pooling = view.pooling
    described: dict[str, Any] = {"rule": _history_rule(pooling), "length": make_pooling(pooling).num_events}
    if pooling.sqrt_repeats:
        described["sqrt_repeats"] = True
    if pooling.kind is PoolingKind.RECENCY:
        described["scale"] = pooling.scale
    elif not (view.is_attention or view.is_sequence):
        described["half_life_days"] = pooling.half_life_days
    return described | {"features": [feature.name for feature in view.features]}


def _describe_tower(spec: TowerSpec, file: str, layout: TowerLayout, shape: list[int]) -> dict[str, Any]:
    described: dict[str, dict[str, Any]] = {
        SINGLES: {
            "type": "int64",
            "shape": ["batch", len(layout.singles)],
            "holds": "embedding indices of the single-valued features, one per column",
            "features": [_describe_feature(feature) for feature in layout.singles],
        },
        IS_EMPTY_HISTORY: {"type": "float32", "shape": ["batch"], "holds": _RULES[IS_EMPTY_HISTORY]},
    }
    rules = {feature: _history_rule(view.pooling) for view in spec.history_views for feature in view.features}
    for feature in layout.padded:
        rule = rules.get(feature, "weighted" if feature.is_weighted else "mean")
        indices, whole = indices_input(feature.name), {"type": "int64", "shape": ["batch", layout.length_name(feature)]}
        holds = f"whole seconds from each event of {indices} to the newest"
        described[indices] = {**whole, "holds": "embedding indices", "feature": _describe_feature(feature)}
        described[weights_input(feature.name)] = {**whole, "type": "float32", "holds": f"weights of {indices}", "rule": rule}
        described[seconds_input(feature.name)] = {**whole, "holds": holds, "rule": "sequence"}
    output = {
        "name": OUTPUT,
        "type": "float32",
        "shape": ["batch", *shape],
        "holds": "vectors of length 1" if spec.is_unit else "vectors",
        "compared_by": "inner product",
        "has_appended_one": shape[-1] > spec.output_dim,
    }
    return {"file": file, "inputs": [{"name": name, **described[name]} for name in layout.input_names], "output": output}


def _describe_feature(feature: TowerFeature) -> dict[str, Any]:
    return {
        "name": feature.name,
        "side": feature.side.value,
        "num_embeddings": feature.num_embeddings,
        "is_multi": feature.is_multi,
        "is_weighted": feature.is_weighted,
    }
