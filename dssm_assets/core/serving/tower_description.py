"""towers.json: what the exported towers take and give, in words and numbers, for whoever feeds them without this package.

Belongs here: the description. Does not belong here: the export (`tower_export.py`) and filling the inputs
(`tower_layout.py`).
"""

from __future__ import annotations

from typing import Any, Final

from dssm_assets.core.model_config import PoolingKind
from dssm_assets.core.models.history_pooling import reach
from dssm_assets.core.models.tower_feature import TowerFeature
from dssm_assets.core.models.tower_spec import HistoryView, TowerSpec
from dssm_assets.core.serving.tower_layout import (
    IS_EMPTY_HISTORY,
    OUTPUT,
    SINGLES,
    TowerLayout,
    indices_of,
    item_layout,
    user_layout,
    weights_of,
)

FORMAT: Final = 1
USER_TOWER: Final = "user_tower.onnx"
ITEM_TOWER: Final = "item_tower.onnx"

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
    "repeats_root": "Where a pooling says so, the weights of the present values are first made such that those of one value sum to "
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
                "file": USER_TOWER,
                "inputs": _inputs(spec, user_layout(spec)),
                "output": _output(spec, [spec.num_interests, of_user] if spec.num_interests > 1 else [of_user]),
            },
            "item": {
                "file": ITEM_TOWER,
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
    if pooling.repeats_root:
        described["repeats_root"] = True
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
