"""Every operator keeps the contract of operators."""

from __future__ import annotations

from dssm_assets.core.features.operators.registry import OPERATORS
from dssm_assets.testing import OperatorContract
from dssm_assets_tests.core.features.operators.test_two_inputs import DEFINITIONS


class TestOperators(OperatorContract):
    definitions = (
        {"feature_type": "id_feature", "expression": "user:a"},
        {"feature_type": "id_feature", "expression": "user:a", "value_dim": 1},
        {"feature_type": "raw_feature", "expression": "user:a"},
        {"feature_type": "raw_feature", "expression": "user:a", "value_dim": 2},
        {"feature_type": "lookup_feature", "map": "user:a", "key": "user:b"},
        {"feature_type": "lookup_feature", "map": "user:a", "key": "user:b", "need_discrete": True},
        {"feature_type": "match_feature", "nested_map": "user:a", "pkey": "user:b", "skey": "user:c"},
        {"feature_type": "expr_feature", "expression": "a + b", "variables": ["user:a", "user:b"]},
        *({"feature_type": kind, **keys} for kind, keys in DEFINITIONS.items()),
    )


def test_the_contract_runs_for_every_operator() -> None:
    others = {"tokenize_feature", "sequence_id_feature", "sequence_raw_feature"}  # they need a file, or other inputs
    assert {str(one["feature_type"]) for one in TestOperators.definitions} == set(OPERATORS) - others
