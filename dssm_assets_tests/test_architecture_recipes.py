"""The recipes of docs/architecture.md, followed from outside the package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from dssm_assets.core.config.features import Statistics
from dssm_assets.core.config.model import Model
from dssm_assets.core.errors import FeatureSpecError
from dssm_assets.core.features import column_values
from dssm_assets.core.features.expressions import ExpressionText
from dssm_assets.core.features.generator import FeatureGenerator
from dssm_assets.core.features.operators.base import NumericOperator
from dssm_assets.core.features.operators.registry import OPERATORS
from dssm_assets.core.models.losses.loss_terms import Affine, LossTerms
from dssm_assets.core.models.losses.registry import LOSSES
from dssm_assets.core.statistics.binning import bin_features
from dssm_assets.core.statistics.bucketizer import Bucketizer
from dssm_assets.core.statistics.feature_config import decide_feature_config
from dssm_assets_tests.core.statistics.counting import count_categories, count_numbers
from dssm_assets_tests.core.training.worlds import fitted


def bpr_loss(
    user: Tensor,
    positive: Tensor,
    columns: Tensor,
    hard: Tensor,
    terms: LossTerms,
    scale: Tensor | float,
    affine: Affine | None = None,
) -> Tensor:
    """Returns the mean of -log sigmoid(positive - negative), Bayesian personalised ranking (Rendle et al. 2009)."""
    margins = ((user * positive).sum(1)[:, None] - user @ columns.T) * scale  # [B, C]
    counts = torch.ones_like(margins)
    counts[terms.masked.rows, terms.masked.columns] = 0.0
    by_row = (softplus(-margins) * counts).sum(1) / counts.sum(1).clamp(min=1.0)
    return (by_row * terms.weight).sum() / terms.weight.sum()


def test_a_loss_from_outside_the_package_trains_towers(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="a registered loss: softmax, sigmoid, l2"):
        Model(loss="bpr")
    monkeypatch.setitem(LOSSES, "bpr", bpr_loss)  # LOSSES["bpr"] = bpr_loss, undone after the test
    losses = fitted({"loss": "bpr"}, {"epochs": 10}).loss_by_step
    # A user's negatives come from both halves of the items; those of its own half it cannot tell from its positives.
    assert losses[-3:].mean() < 0.65 * losses[:3].mean()


class LengthFeature(NumericOperator):
    """The number of characters of a text."""

    feature_type: Literal["length_feature"] = "length_feature"
    expression: ExpressionText

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        """Returns the length of each text."""
        texts = column_values.text_values(inputs[0], self.where(0)).cast(pa.string())
        return self.finish(column_values.number_values(pc.utf8_length(texts), self.where(0)))


def test_an_operator_from_outside_the_package_generates_and_gets_embedding_indices(monkeypatch: pytest.MonkeyPatch) -> None:
    length = {"feature_type": "length_feature", "feature_name": "length", "expression": "item:title", "boundaries": [3, 6]}
    fg: dict[str, Any] = {"features": [length]}
    with pytest.raises(
        FeatureSpecError, match=r"feature_type: expected one of: id_feature, raw_feature, .*, got 'length_feature'"
    ):
        FeatureGenerator.from_fg_json(fg)
    monkeypatch.setitem(OPERATORS, "length_feature", LengthFeature)  # OPERATORS["length_feature"] = ..., undone after the test
    generator = FeatureGenerator.from_fg_json(fg)
    items = pa.table({"title": ["a", None, "abcd", "abcdefg"]})
    assert generator.generate(items).to_pydict() == {"length": [1, 0, 4, 7]}
    assert [generator.generate_one(item) for item in items.to_pylist()] == generator.generate(items).to_pylist()
    assert generator.bucketize(items).to_pydict() == {"length": [[0], [0], [1], [2]]}

    encoded, features = generator.encode(items), generator.spec.features
    binning, counts = bin_features(count_numbers(encoded, features), 10), count_categories(encoded, features)
    config = decide_feature_config(generator.spec, Statistics(), binning, counts)
    indices = Bucketizer(config, counts).bucketize("length", encoded.column("length"))
    assert indices.to_pylist() == [1, 1, 2, 3]
