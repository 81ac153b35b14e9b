"""The feature types of fg.json. To add a type, write a class in a file of its own and add a line here.

`sequence_feature` is a group of features; `core/features/spec.py` parses it.
"""

from __future__ import annotations

from typing import Final

from dssm_assets.core.features.operators.base import Operator
from dssm_assets.core.features.operators.bool_mask_feature import BoolMaskFeature
from dssm_assets.core.features.operators.combo_feature import ComboFeature
from dssm_assets.core.features.operators.expr_feature import ExprFeature
from dssm_assets.core.features.operators.id_feature import IdFeature
from dssm_assets.core.features.operators.kv_dot_product import KvDotProduct
from dssm_assets.core.features.operators.lookup_feature import LookupFeature
from dssm_assets.core.features.operators.match_feature import MatchFeature
from dssm_assets.core.features.operators.overlap_feature import OverlapFeature
from dssm_assets.core.features.operators.raw_feature import RawFeature
from dssm_assets.core.features.operators.sequence_feature import SequenceIdFeature, SequenceRawFeature
from dssm_assets.core.features.operators.tokenize_feature import TokenizeFeature

OPERATORS: Final[dict[str, type[Operator]]] = {
    "id_feature": IdFeature,
    "raw_feature": RawFeature,
    "combo_feature": ComboFeature,
    "lookup_feature": LookupFeature,
    "match_feature": MatchFeature,
    "overlap_feature": OverlapFeature,
    "expr_feature": ExprFeature,
    "kv_dot_product": KvDotProduct,
    "bool_mask_feature": BoolMaskFeature,
    "tokenize_feature": TokenizeFeature,
    "sequence_id_feature": SequenceIdFeature,
    "sequence_raw_feature": SequenceRawFeature,
}
"""feature_type -> its operator. A plug-in adds its own: `OPERATORS["my_feature"] = MyFeature` (docs/platform.md)."""
