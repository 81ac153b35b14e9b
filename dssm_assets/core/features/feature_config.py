"""feature_config and step_config: what every feature's embedding looks like, decided from the window's statistics.

Belongs here: keep or drop, kind of vocabulary, widths. Does not belong here: the statistics themselves
(`binning.py`, `value_counts.py`) and turning values into indices (`bucketizer.py`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from dssm_assets.core.columns import COUNT, FEATURE, FEATURE_INFO, MESSAGE
from dssm_assets.core.config import EmbeddingDimPolicy, Statistics
from dssm_assets.core.errors import ConfigError, Fault, SchemaError
from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features.feature_info import FeatureInfo
from dssm_assets.core.features.spec import Feature, FgSpec
from dssm_assets.core.features.vocabulary import FeatureCounts

CONFIG: Final = pa.schema([(FEATURE, pa.string()), (FEATURE_INFO, pa.string()), (MESSAGE, pa.string())])
DROP: Final = "DROP IT: "
NUM_STEPS: Final = "__NUM_STEPS__"
DECAY_STEPS: Final = "__DECAY_STEPS__"


@dataclass(frozen=True)
class _Rule:
    """How values of an embedding become indices, from how many distinct values, and in words."""

    keys: Mapping[str, Any]
    num_embeddings: int
    distinct: int
    words: str


def feature_config(
    spec: FgSpec, statistics: Statistics, binning: pa.Table, counts: pa.Table, *, exclude: Collection[str] = ()
) -> pa.Table:
    """Returns feature, feature_info (JSON of `FeatureInfo`, null if dropped), message: one row per feature, then per
    sub-feature of a sequence, in the order of fg.json.

    `DROP IT: reason` stands in the message of a feature that is excluded, constant (one value, never missing), missing
    in more rows than drop_missing_frac, or without a value that reaches min_count. Keys of fg.json win over statistics:
    boundaries, hash_bucket_size, num_buckets, vocab_list, embedding_dim. Features of one embedding_name get one
    vocabulary, counted over all of them (dropped ones too), and one width. A sub-feature of a sequence is judged by the
    counts of its embedding.

    Args:
        spec: the feature definitions.
        statistics: the section of the configuration.
        binning: `feature_binning` of the window.
        counts: category counts of the window, in any order.
        exclude: features that are generated but not trained on.

    Raises:
        SchemaError: naming every feature that the statistics lack, and every sub-feature whose vocabulary is unknown.
        ConfigError: if statistics.embedding_dim or exclude name no feature, or two widths for one embedding.
    """
    features = (*spec.features, *spec.sequence_features)
    _check_names(features, statistics, exclude)
    tables = _Tables(spec, features, statistics, binning, FeatureCounts(counts))
    tables.check()
    rows = []
    for feature in features:
        rule = tables.rule(feature)
        reason = "excluded by the configuration" if feature.name in exclude else tables.drop_reason(feature, rule)
        if reason is not None:
            rows.append({FEATURE: feature.name, FEATURE_INFO: None, MESSAGE: DROP + reason})
        else:
            rows.append({FEATURE: feature.name, FEATURE_INFO: tables.info(feature, rule).to_json(), MESSAGE: rule.words})
    return pa.Table.from_pylist(rows, schema=CONFIG)


def step_config(positives: int, epochs: int, batch_size: int, workers: int = 1) -> pa.Table:
    """Returns the rows `__NUM_STEPS__` {"num_steps": n} and `__DECAY_STEPS__` {"decay_steps": n}.

    num_steps = positives * epochs / (batch_size * workers), rounded up; decay_steps are the steps of one epoch.

    Raises:
        ValueError: if a number is below 1.
    """
    given = {"positives": positives, "epochs": epochs, "batch_size": batch_size, "workers": workers}
    small = [f"{name} = {number}" for name, number in given.items() if number < 1]
    if small:
        raise ValueError(f"steps need numbers of at least 1, got {', '.join(small)}")
    batch = batch_size * workers
    steps = {NUM_STEPS: ("num_steps", -(-positives * epochs // batch)), DECAY_STEPS: ("decay_steps", -(-positives // batch))}
    words = f"{positives} positives, {epochs} epochs, batches of {batch_size} on {workers} workers"
    rows = [{FEATURE: name, FEATURE_INFO: json.dumps({key: number}), MESSAGE: words} for name, (key, number) in steps.items()]
    return pa.Table.from_pylist(rows, schema=CONFIG)


def embedding_dim(distinct: int, policy: EmbeddingDimPolicy) -> int:
    """Returns the width for so many distinct values (semantics.md section 5), a multiple of the step and at least it.

    Rounds half to even. Example: SQRT4_STEP4 of 10000 is round(10 / 4) * 4 = round(2.5) * 4 = 8.
    """
    step = 8 if policy.value.endswith("STEP8") else 4
    number = max(distinct, 1)
    size = math.sqrt(math.sqrt(number)) if "SQRT4" in policy.value else math.log(number)
    return max(round(size / step) * step, step)


class _Tables:
    """The statistics, looked up by feature and by embedding."""

    def __init__(
        self, spec: FgSpec, features: Sequence[Feature], statistics: Statistics, binning: pa.Table, counts: FeatureCounts
    ) -> None:
        self.sampled = frozenset(feature.name for feature in spec.features)
        self.statistics = statistics
        self.bins: dict[str, dict[str, Any]] = {row[FEATURE]: row for row in binning.to_pylist()}
        self.counts = counts
        self.groups: dict[str, list[Feature]] = {}
        for feature in features:
            self.groups.setdefault(feature.embedding_name, []).append(feature)
        self._rules: dict[str, _Rule] = {}

    def check(self) -> None:
        faults = []
        for feature in (feature for group in self.groups.values() for feature in group):
            where = f"feature {feature.name}"
            if feature.kind is Kind.NUMERIC and feature.name not in self.bins:
                faults.append(Fault(where, "its row in feature_binning", "none", "recompute feature_binning with this fg.json"))
            if feature.kind is Kind.CATEGORICAL and feature.sequence is None and feature.name not in self.counts:
                faults.append(Fault(where, "its rows in feature_counts", "none", "recompute feature_counts with this fg.json"))
            if feature.sequence is not None and not self.counted(feature) and not self._defined(feature):
                remedy = "share the embedding_name of a feature of the samples, or give hash_bucket_size or vocab_list"
                faults.append(Fault(where, "a known vocabulary", f"no counts of embedding {feature.embedding_name}", remedy))
        if faults:
            raise SchemaError(faults)

    def counted(self, feature: Feature) -> list[str]:
        """Names of the counted features that share the feature's embedding."""
        return [member.name for member in self.groups[feature.embedding_name] if member.name in self.counts]

    def rule(self, feature: Feature) -> _Rule:
        if feature.kind is Kind.NUMERIC:
            return self._number_rule(feature)
        if feature.embedding_name not in self._rules:
            self._rules[feature.embedding_name] = self._category_rule(feature)
        return self._rules[feature.embedding_name]

    def drop_reason(self, feature: Feature, rule: _Rule) -> str | None:
        if feature.kind is Kind.NUMERIC:
            row = self.bins[feature.name]
            total, missing, distinct = row[COUNT], row["missing_count"], row["distinct_count"]
        else:
            names = [feature.name] if feature.sequence is None or feature.name in self.counts else self.counted(feature)
            if not names:
                return None
            (total, missing), distinct = self.counts.totals(names), len(self.counts.by_frequency(names)[0])
        if missing == total:
            return "it has no value in the window"
        if missing > self.statistics.drop_missing_frac * total:
            return f"missing in {missing} of {total} rows, above drop_missing_frac {self.statistics.drop_missing_frac}"
        if distinct == 1 and missing == 0:
            return "constant: one value in the window, never missing"
        if rule.keys.get("vocab_size") == 0:
            return f"no value occurs {self.statistics.min_count} times (min_count)"
        return None

    def info(self, feature: Feature, rule: _Rule) -> FeatureInfo:
        sequence = feature.sequence
        return FeatureInfo(
            side=feature.side,
            kind=feature.kind,
            is_multi=feature.is_multi,
            sequence_name=sequence.sequence_name if sequence else None,
            sequence_length=sequence.sequence_length if sequence else None,
            embedding_name=feature.embedding_name,
            embedding_dim=self._dim(feature, rule),
            num_embeddings=rule.num_embeddings,
            **rule.keys,
        )

    def _number_rule(self, feature: Feature) -> _Rule:
        given = getattr(feature.operator, "boundaries", None)
        boundary = list(given or self.bins[feature.name]["boundaries"])
        origin = "as defined" if given else "of equal frequency"
        return _Rule({"boundary": boundary}, len(boundary) + 2, len(boundary) + 1, f"{len(boundary) + 1} bins {origin}")

    def _category_rule(self, feature: Feature) -> _Rule:
        names = self.counted(feature)
        hashes, counts = self.counts.by_frequency(names)
        defined = self._defined(feature)
        if "hash_bucket_size" in defined:
            size = defined["hash_bucket_size"]
            return _Rule(defined, size + 1, len(hashes) or size, f"{size} hash buckets as defined")
        if defined:
            size = len(defined["vocab_list"]) if "vocab_list" in defined else defined["num_buckets"]
            return _Rule(defined, size + 2, size, f"vocabulary of {size} as defined")
        if len(hashes) > self.statistics.max_vocabulary:
            size = len(hashes) * self.statistics.hash_ratio
            words = f"{size} hash buckets: {len(hashes)} distinct values, above max_vocabulary {self.statistics.max_vocabulary}"
            return _Rule({"hash_bucket_size": size}, size + 1, len(hashes), words)
        size = int((counts >= self.statistics.min_count).sum())
        keys = {"vocab_size": size, "counted_features": names, "min_count": self.statistics.min_count}
        return _Rule(keys, size + 2, len(hashes), f"vocabulary of {size}, {len(hashes)} distinct values")

    def _defined(self, feature: Feature) -> dict[str, Any]:
        """The vocabulary that any feature of the embedding defines in fg.json (they agree: spec_checks)."""
        for key in ("hash_bucket_size", "num_buckets", "vocab_list"):
            for member in self.groups[feature.embedding_name]:
                if getattr(member.operator, key, None) is not None:
                    return {key: getattr(member.operator, key)}
        return {}

    def _dim(self, feature: Feature, rule: _Rule) -> int:
        group = self.groups[feature.embedding_name]
        for member in group:
            if member.operator.embedding_dim is not None:
                return member.operator.embedding_dim
        for name in [feature.embedding_name, *(member.name for member in group)]:
            if name in self.statistics.embedding_dim:
                return self.statistics.embedding_dim[name]
        return embedding_dim(rule.distinct, self.statistics.embedding_dim_policy)


def _check_names(features: Sequence[Feature], statistics: Statistics, exclude: Collection[str]) -> None:
    names = {feature.name for feature in features}
    known = names | {feature.embedding_name for feature in features}
    remedy = "name a feature of fg.json"
    faults = [
        Fault(f"statistics.embedding_dim, key {name}", "a feature or an embedding", "an unknown name", remedy)
        for name in set(statistics.embedding_dim) - known
    ]
    faults += [Fault(f"features.exclude, {name}", "a feature", "an unknown name", remedy) for name in set(exclude) - names]
    faults += [
        Fault(f"statistics.embedding_dim, key {name}", "a width of at least 1", str(width), "correct the value")
        for name, width in statistics.embedding_dim.items()
        if width < 1
    ]
    widths: dict[str, set[int]] = {}
    for feature in features:
        given = {statistics.embedding_dim[n] for n in (feature.name, feature.embedding_name) if n in statistics.embedding_dim}
        widths.setdefault(feature.embedding_name, set()).update(given)
    faults += [
        Fault(f"statistics.embedding_dim, embedding {name}", "one width", f"widths {sorted(found)}", "agree on one")
        for name, found in widths.items()
        if len(found) > 1
    ]
    if faults:
        raise ConfigError(faults)
