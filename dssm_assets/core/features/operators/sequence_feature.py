"""sequence_feature: a user's past, one sub-feature per attribute of each past item.

Belongs here: the keys of the sequence and the names of its outputs. Its sub-features are operators like any other;
they see the elements of the lists as rows (`generator.FeatureGenerator.generate_sequence`).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SerializeAsAny

from dssm_assets.core.features.expressions import ExpressionText
from dssm_assets.core.features.operators.base import Definition, Operator


class SequenceFeature(Definition):
    """A sequence and its sub-features, each a category with one value per element.

    Attributes:
        sequence_name: first part of the sub-features' names, `sequence__feature`.
        sequence_length: most recent elements that a model should read (0: as the model says). Generation keeps all.
        sequence_delim: what stands between the elements of a sequence that comes as text.
        sequence_pk: input that names the elements; every sub-feature must have as many.
    """

    feature_type: Literal["sequence_feature"] = "sequence_feature"
    sequence_name: str = Field(min_length=1)
    sequence_length: int = Field(default=0, ge=0)
    sequence_delim: str = Field(default=";", min_length=1)
    sequence_pk: ExpressionText | None = None
    features: tuple[SerializeAsAny[Operator], ...] = Field(min_length=1)

    def output_name(self, operator: Operator) -> str:
        """Returns the name of a sub-feature's column."""
        return f"{self.sequence_name}__{operator.feature_name}"
