"""The one place that says which feature types exist. A new operator is one file beside this and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from dssm_assets.core.features.operators.base import Operator
from dssm_assets.core.features.operators.id_feature import IdFeature
from dssm_assets.core.features.operators.lookup_feature import LookupFeature
from dssm_assets.core.features.operators.raw_feature import RawFeature

OPERATORS: Final[Mapping[str, type[Operator]]] = MappingProxyType(
    {
        "id_feature": IdFeature,
        "raw_feature": RawFeature,
        "lookup_feature": LookupFeature,
    }
)

SEQUENCE: Final = "sequence_feature"
