"""feature_config and step_config: what every feature's embedding looks like, decided from the window's statistics.

Belongs here: keep or drop, kind of vocabulary, widths. Does not belong here: the statistics themselves
(`binning.py`, `value_counts.py`) and turning values into indices (`bucketizer.py`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import pyarrow as pa

from dssm_assets.core.columns import FEATURE, FEATURE_INFO, MESSAGE
from dssm_assets.core.config.features import FeatureStatistics, HashFunction, Statistics
from dssm_assets.core.config.training import StepPlan, Training, planned_steps
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features.spec import Feature, FgSpec
from dssm_assets.core.statistics.binning import BINNING
from dssm_assets.core.statistics.feature_rules import FeatureRules
from dssm_assets.core.statistics.vocabulary import FeatureCounts

CONFIG: Final = pa.schema([(FEATURE, pa.string()), (FEATURE_INFO, pa.string()), (MESSAGE, pa.string())])
DROP: Final = "DROP IT: "
NUM_STEPS: Final = "__NUM_STEPS__"
DECAY_STEPS: Final = "__DECAY_STEPS__"


def decide_feature_config(
    spec: FgSpec,
    statistics: Statistics,
    binning: pa.Table,
    counts: pa.Table,
    *,
    exclude: Collection[str] = (),
    hash_function: HashFunction = HashFunction.MURMUR,
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
        hash_function: the hash that the counted values were encoded with.

    Raises:
        SchemaError: naming every feature that the statistics lack, and every sub-feature whose vocabulary is unknown.
        ConfigError: if statistics.embedding_dim or exclude name no feature, or two widths for one embedding.
    """
    features = (*spec.features, *spec.sequence_features)
    check_names(features, statistics, exclude)
    rules = FeatureRules(features, statistics, binning, FeatureCounts(counts), hash_function)
    rules.check()
    rows = []
    for feature in features:
        reason = "excluded by the configuration" if feature.name in exclude else rules.drop_reason(feature)
        if reason is not None:
            rows.append({FEATURE: feature.name, FEATURE_INFO: None, MESSAGE: DROP + reason})
            continue
        words, collisions = rules.rule(feature).words, rules.collisions(feature)
        words += f", {collisions:.2%} of them share a bucket" if collisions is not None else ""
        rows.append({FEATURE: feature.name, FEATURE_INFO: rules.info(feature).to_json(), MESSAGE: words})
    return pa.Table.from_pylist(rows, schema=CONFIG)


def collision_fracs(spec: FgSpec, statistics: Statistics, counts: pa.Table) -> dict[str, float]:
    """Returns by hashed feature the share of the window's distinct values that share a bucket with another one."""
    features = [feature for feature in (*spec.features, *spec.sequence_features) if feature.kind is Kind.CATEGORICAL]
    rules = FeatureRules(features, statistics, BINNING.empty_table(), FeatureCounts(counts), HashFunction.MURMUR)
    found = {feature.name: rules.collisions(feature) for feature in features}
    return {name: frac for name, frac in found.items() if frac is not None}


def decide_step_config(positives: int, training: Training) -> pa.Table:
    """Returns the rows `__NUM_STEPS__` {"num_steps": n} and `__DECAY_STEPS__` {"decay_steps": n}: the plan of the fit.

    num_steps = epochs x positives x epoch_frac / batch_size, each epoch rounded up to whole batches; decay_steps are the last of
    them, in which the learning rate falls. A fit that leaves out positives (of items outside the corpus, or with fewer than
    min_history before them) takes fewer steps and spreads the plan over them.

    Raises:
        ValueError: there is no positive.
    """
    if positives < 1:
        raise ValueError(f"steps need at least 1 positive, got {positives}")
    plan = planned_steps(positives, training)
    words = (
        f"{positives} positives, {training.epochs} epochs of {training.epoch_frac:g} of them, batches of {training.batch_size}"
    )
    steps = {NUM_STEPS: {"num_steps": plan.num_steps}, DECAY_STEPS: {"decay_steps": plan.decay_steps}}
    rows = [{FEATURE: name, FEATURE_INFO: json.dumps(info), MESSAGE: words} for name, info in steps.items()]
    return pa.Table.from_pylist(rows, schema=CONFIG)


def read_step_plan(steps: Mapping[str, str]) -> StepPlan:
    """Returns the plan that `step_config` tells, by its features and their feature_info."""
    return StepPlan(**json.loads(steps[NUM_STEPS]), **json.loads(steps[DECAY_STEPS]))


def check_names(features: Sequence[Feature], statistics: Statistics, exclude: Collection[str]) -> None:
    """Checks that what the configuration says of features by name is of features that exist, and said once.

    Raises:
        ConfigError: naming every unknown name, width below 1 and contradiction within an embedding.
    """
    names = {feature.name for feature in features}
    known = names | {feature.embedding_name for feature in features}
    remedy = "name a feature of fg.json"
    faults = [
        Fault(f"statistics.{section}, key {name}", "a feature or an embedding", "an unknown name", remedy)
        for section, given in (("embedding_dim", statistics.embedding_dim), ("features", statistics.features))
        for name in sorted(set(given) - known)
    ]
    faults += [
        Fault(f"features.exclude, {name}", "a feature", "an unknown name", remedy) for name in sorted(set(exclude) - names)
    ]
    faults += [
        Fault(f"statistics.embedding_dim, key {name}", "a width of at least 1", str(width), "correct the value")
        for name, width in statistics.embedding_dim.items()
        if width < 1
    ]
    groups: dict[str, set[str]] = {}
    for feature in features:
        if feature.kind is Kind.CATEGORICAL:
            groups.setdefault(feature.embedding_name, {feature.embedding_name}).add(feature.name)
    for embedding, members in groups.items():
        for key in FeatureStatistics.model_fields:
            given = statistics.given(sorted(members), key)
            if len(set(map(str, given.values()))) > 1:
                got = ", ".join(f"{name}: {value}" for name, value in given.items())
                faults.append(Fault(f"statistics, {key} of embedding {embedding}", "one value", got, "agree on one"))
    if faults:
        raise ConfigError(faults)
