"""The tables feature_config (the embedding of every feature) and step_config (the number of training steps)."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import pyarrow as pa

from dssm_assets.core.columns import COUNT, FEATURE, FEATURE_INFO, MESSAGE, VALUE_HASH
from dssm_assets.core.config.features import FeatureStatistics, HashFunction, Statistics
from dssm_assets.core.config.training import StepPlan, Training, planned_steps
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features.fg_tables import CATEGORY_VALUE_COUNTS, FEATURE_BINNING, FEATURE_CONFIG
from dssm_assets.core.features.spec import Feature, FgSpec
from dssm_assets.core.statistics.feature_rules import FeatureCounts, FeatureRules

DROP: Final = "DROP IT: "
_ENOUGH: Final = 1_000_000_000
"""A count above every min_count."""
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
    """Returns feature_config: one row per feature, then one per sub-feature of a sequence, in the order of fg.json.

    Columns: feature, feature_info (JSON of `FeatureInfo`, null if dropped), message. The message of a dropped feature is
    `DROP IT: reason`. A feature is dropped if it is excluded, is constant (one value, never missing), is missing in more than
    99.9% of the rows, or has no value with at least min_count occurrences. Keys of fg.json override the statistics: boundaries,
    hash_bucket_size, num_buckets, vocab_list, embedding_dim. Features with one embedding_name share a width and a vocabulary,
    which counts dropped features, too. A sub-feature of a sequence uses the counts of its embedding.

    Args:
        binning: result of `bin_features` for the window.
        counts: category counts of the window, in any order.
        exclude: features that are generated but not trained on.

    Raises:
        SchemaError: a feature has no statistics, or a sub-feature no vocabulary. All are named.
        ConfigError: statistics or exclude name an unknown feature, or give two values for one embedding.
    """
    features = (*spec.features, *spec.sequence_features)
    check_names(features, statistics, exclude)
    rules = FeatureRules(features, statistics, binning, FeatureCounts(counts), hash_function)
    rules.check_statistics()
    rows = []
    for feature in features:
        reason = "excluded by the configuration" if feature.name in exclude else rules.drop_reason(feature)
        if reason is not None:
            rows.append({FEATURE: feature.name, FEATURE_INFO: None, MESSAGE: DROP + reason})
            continue
        message, collisions = rules.rule_for(feature).message, rules.collision_frac_of(feature)
        message += f", {collisions:.2%} of them share a bucket" if collisions is not None else ""
        rows.append({FEATURE: feature.name, FEATURE_INFO: rules.info_for(feature).to_json(), MESSAGE: message})
    return pa.Table.from_pylist(rows, schema=FEATURE_CONFIG.schema)


def least_statistics(spec: FgSpec) -> tuple[pa.Table, pa.Table]:
    """Returns a binning and counts with two values per feature, just enough to keep every feature.

    With these, an embedding gets its configured width, or else the smallest width of its policy. So a fault of towers with these
    widths is a fault in every window.
    """
    numeric, categories = ([f.name for f in spec.features if f.kind is kind] for kind in (Kind.NUMERIC, Kind.CATEGORICAL))
    rows = [{FEATURE: name, "boundaries": [], COUNT: 2, "missing_count": 0, "distinct_count": 2} for name in numeric]
    counts = [{FEATURE: name, VALUE_HASH: value, COUNT: _ENOUGH} for name in categories for value in (1, 2)]
    return pa.Table.from_pylist(rows, schema=FEATURE_BINNING.schema), pa.Table.from_pylist(
        counts, schema=CATEGORY_VALUE_COUNTS.schema
    )


def decide_step_config(positives: int, training: Training) -> pa.Table:
    """Returns step_config: `__NUM_STEPS__` {"num_steps": n} and `__DECAY_STEPS__` {"decay_steps": n}.

    num_steps = epochs x positives x epoch_frac / batch_size; each epoch is rounded up to whole batches. If a fit skips
    positives, it shortens the plan in proportion.
    """
    plan = planned_steps(positives, training)
    epochs = f"{training.epochs} epochs of {training.epoch_frac:g} of them"
    message = f"{positives} positives, {epochs}, batches of {training.batch_size}"
    steps = {NUM_STEPS: {"num_steps": plan.num_steps}, DECAY_STEPS: {"decay_steps": plan.decay_steps}}
    rows = [{FEATURE: name, FEATURE_INFO: json.dumps(info), MESSAGE: message} for name, info in steps.items()]
    return pa.Table.from_pylist(rows, schema=FEATURE_CONFIG.schema)


def read_step_plan(steps: Mapping[str, str]) -> StepPlan:
    """Reads the plan from the rows of step_config (feature -> feature_info)."""
    return StepPlan(**json.loads(steps[NUM_STEPS]), **json.loads(steps[DECAY_STEPS]))


def check_names(features: Sequence[Feature], statistics: Statistics, exclude: Collection[str]) -> None:
    """Raises a ConfigError for every unknown feature name, and for every embedding with two values of one key."""
    names = {feature.name for feature in features}
    known = names | {feature.embedding_name for feature in features}
    remedy = "name a feature of fg.json"
    faults = [
        Fault(f"statistics.{section}, key {name}", "a feature or an embedding", "an unknown name", remedy)
        for section, given in (("embedding_dim", statistics.embedding_dim), ("features", statistics.features))
        for name in sorted(set(given) - known)
    ]
    unknown = sorted(set(exclude) - names)
    faults += [Fault(f"features.exclude, {name}", "a feature", "an unknown name", remedy) for name in unknown]
    groups: dict[str, set[str]] = {}
    for feature in features:
        if feature.kind is Kind.CATEGORICAL:
            groups.setdefault(feature.embedding_name, {feature.embedding_name}).add(feature.name)
    for embedding, members in groups.items():
        for key in (*FeatureStatistics.model_fields, "embedding_dim"):
            given = statistics.own_values(sorted(members), key)
            if len(set(map(str, given.values()))) > 1:
                got = ", ".join(f"{name}: {value}" for name, value in given.items())
                faults.append(Fault(f"statistics, {key} of embedding {embedding}", "one value", got, "agree on one"))
    ConfigError.raise_if(faults)
