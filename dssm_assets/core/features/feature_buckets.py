"""The bucket rules of all features of a specification, each made once when it is first needed."""

from __future__ import annotations

from dssm_assets.core.features.buckets import BucketRule, has_buckets
from dssm_assets.core.features.hash_function import HashFunction
from dssm_assets.core.features.operators.base import Operator


class FeatureBuckets:
    """Bucket rules by definition."""

    def __init__(self, function: HashFunction) -> None:
        self._function = function
        self._rules: dict[int, tuple[Operator, BucketRule | None]] = {}

    def rule(self, operator: Operator) -> BucketRule | None:
        """Returns the rule of a definition, None if it does not say what bucket a value gets."""
        if id(operator) not in self._rules:
            # The definition is kept beside its rule: its id stays its own as long as the rule lives.
            self._rules[id(operator)] = (operator, BucketRule(operator, self._function) if has_buckets(operator) else None)
        return self._rules[id(operator)][1]
