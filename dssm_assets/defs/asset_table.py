"""The asset table: the assets of every group, in pipeline order.

Belongs here: an asset's meaning, inputs and checks, in the words of the UI. Does not belong here: computing it (`steps/`).

An asset does not list an input that another of its inputs already depends on: staleness travels along the chain, and the graph
stays readable. The metadata of a partition (`inputs`) names everything that the partition was computed from, with digests.
"""

from dataclasses import replace
from functools import partial, reduce
from typing import Any

from dssm_assets.core.config.pipeline import SHOWN_EVENT, PipelineConfig
from dssm_assets.defs.asset_row import TRAINER, AssetRow, CheckRow, LazyStep
from dssm_assets.installed_extras import load_all
from dssm_assets.steps.checks import CHECKS, check_names

PUBLISHING_GROUP = "serving"
"""Only the job `publish` runs the assets of this group."""
_ARROW = frozenset({"arrow", "parquet"})
_table = partial(AssetRow, runs_on_engine=True, kinds=frozenset({"ibis", "duckdb", "parquet"}))
_encoded = partial(AssetRow, runs_on_engine=True, kinds=_ARROW)
_windowed = partial(AssetRow, is_windowed=True)

_SOURCE = (
    AssetRow(
        step=LazyStep("steps.source", "user_table"),
        is_log=True,
        description="Users as of the day, with their own columns. Days of a snapshot refer to the same file.",
        reading="One row per user. A user without a row has no user features.",
    ),
    AssetRow(
        step=LazyStep("steps.source", "item_table"),
        is_log=True,
        description="Items as of the day, with their own columns (category, brand, price ...).",
        reading="One row per item. An item without a row or without interactions can still be recalled.",
    ),
    AssetRow(
        step=LazyStep("steps.source", "behavior_table"),
        is_log=True,
        description="The day's log in canonical form: user, item, event, time (unix milliseconds), value and context columns. "
        "Unknown events, null ids and unexpected empty days are refused.",
        checks=(CheckRow("has_rows", "The day has events, or the configuration allows empty days.", is_blocking=True),),
        reading="One row per event. A jump of an event's count is usually a change in logging, not in user behavior.",
    ),
)
"""Your own three tables, mapped by the configuration."""

_FEATURES_RAW = (
    _table(
        step=LazyStep("steps.features_raw", "behavior"),
        deps=("behavior_table", "user_table", "item_table"),
        is_log=True,
        description="The day's log with hour, weekday and the item columns that histories and preferences use.",
        reading="One row per event. unknown_users and unknown_items have no row in user_table or item_table.",
    ),
    _table(
        step=LazyStep("steps.features_raw", "user_activity"),
        deps=("behavior",),
        is_rolling=True,
        description="Rolling state per user and event: counts and value sums by window and in total, first and last time. It "
        "is the previous day's state plus the day minus the days that leave a window; without that state, it is rebuilt.",
        reading="One row per user seen so far. Cheap if days are materialized in order, expensive for a single day.",
    ),
    _table(
        step=LazyStep("steps.features_raw", "item_activity"),
        deps=("behavior",),
        is_rolling=True,
        description="Rolling state per item and event, computed like user_activity.",
        reading="One row per item seen so far. Look at its counts before you blame a model for popular items.",
    ),
    _table(
        step=LazyStep("steps.features_raw", "pair_activity"),
        deps=("behavior",),
        is_rolling=True,
        description="The last day of each user, item and event in the longest window, for distinct counts.",
        reading="One row per user, item and event. The largest rolling table: its row count bounds the cost of a day.",
    ),
    _table(
        step=LazyStep("steps.features_raw", "user_preferences"),
        deps=("behavior",),
        is_rolling=True,
        description="Per user and item column: positive events by value (category -> count), for lookup_feature.",
        reading="One row per user, item column and value. Empty without raw_features.preference_columns.",
    ),
    _table(
        step=LazyStep("steps.features_raw", "user_history"),
        deps=("behavior",),
        is_log=True,
        description="The day's positive items of each user in order of time, with item attributes.",
        reading="One row per user with a positive event. Sequence features read window.history_days of it.",
    ),
    _table(
        step=LazyStep("steps.features_raw", "user_all_feature"),
        deps=("user_table", "user_activity", "pair_activity", "user_preferences"),
        description="Per user at the end of the day: profile, counts, funnel ratios, distinct items, value sums, days since "
        "first and last event, preferences.",
        reading="One row per user. `user:` expressions in fg.json can name exactly its columns.",
    ),
    _table(
        step=LazyStep("steps.features_raw", "item_all_feature"),
        deps=("item_table", "item_activity", "pair_activity"),
        description="Per item at the end of the day: source columns, counts, funnel ratios, distinct users, value sums, days "
        "since first and last event.",
        reading="One row per item. `item:` expressions in fg.json can name exactly its columns.",
    ),
)
"""Statistics, preferences and histories as of the end of each day, computed incrementally."""

_PARITY = CheckRow("fg_parity", "Golden rows of the day get the same features in bulk and as single requests.")
_FG = (
    _encoded(
        step=LazyStep("steps.sample", "item_features_fg"),
        deps=("item_all_feature",),
        description="Encoded item features: numbers as float32, categories as 64-bit hashes, not bucketized yet.",
        checks=(_PARITY,),
        reading="One row per item. If fg_parity names a column, requests would see another value than training did.",
    ),
    _encoded(
        step=LazyStep("steps.sample", "user_features_fg"),
        deps=("user_all_feature",),
        description="Encoded user features: numbers as float32, categories as 64-bit hashes, not bucketized yet.",
        checks=(_PARITY,),
        reading="One row per user. Features of a request are encoded by the same generator.",
    ),
    _encoded(
        step=LazyStep("steps.sample", "user_history_fg"),
        deps=("user_history",),
        is_log=True,
        description="The encoded sequence features for the day's part of each user's history.",
        checks=(_PARITY,),
        reading="One row per user with a positive event on the day, aligned with user_history.",
    ),
)
"""Features, generated once per entity and day, so that training and inference read the same encoded rows."""

_SAMPLE = (
    _table(
        step=LazyStep("steps.sample", "sample"),
        deps=("behavior",),
        description="The day's events as labelled samples: keys, event, time, hour, weekday, context. Label 1: positive.",
        reading="One row per positive or exposure event (without exposure events, per event).",
    ),
    _table(
        step=LazyStep("steps.sample", "sample_fg"),
        deps=("sample", "user_features_fg", "item_features_fg"),
        checks=(
            CheckRow("no_leak", "No feature row is newer than the day before its sample.", is_blocking=True),
            CheckRow("fg_parity", "Golden rows of the day get the same context features in bulk and as single requests."),
        ),
        description="Samples with context features, and row numbers in the feature tables of the previous day.",
        reading="One row per sample. rows_of_unknown_users and rows_of_unknown_items train on ids and context alone.",
    ),
    _encoded(
        step=LazyStep("steps.sample", "positive_sample"),
        deps=("sample_fg",),
        description="The samples with a positive event: the towers are trained on them.",
        reading="One row per positive event. An epoch reads the positives of window.days days.",
    ),
    _windowed(
        step=LazyStep("steps.sample", "training_window"),
        deps=("positive_sample", "numeric_value_counts", "category_value_counts", "user_history_fg"),
        checks=(CheckRow("window_complete", "Every day of the window is materialized.", is_blocking=True),),
        description="The days that the model learns from, with row counts and digests. A launched run first makes missing "
        "days; if days still lack, the check names them and blocks everything downstream.",
        reading="One row per table and day of the window.",
    ),
)
"""Labelled rows with the features of the previous day, and the window to learn from."""

_STATISTICS = (
    _encoded(
        step=LazyStep("steps.statistics", "numeric_value_counts"),
        deps=("positive_sample",),
        description="Exact value counts of every numeric feature over the day's positives.",
        reading="One row per feature and value.",
    ),
    _encoded(
        step=LazyStep("steps.statistics", "category_value_counts"),
        deps=("positive_sample",),
        description="Value counts of every categorical feature over the day's positives.",
        reading="One row per feature and value. A feature with ever more values is really an id: hash it, or drop it.",
    ),
    _windowed(
        step=LazyStep("steps.statistics", "feature_binning"),
        deps=("training_window",),
        kinds=_ARROW,
        description="Exact equal-frequency boundaries of every numeric feature over the window; bins are [a, b).",
        reading="One row per numeric feature. A feature with one bin carries no information.",
    ),
    _windowed(
        step=LazyStep("steps.statistics", "feature_counts"),
        deps=("training_window",),
        kinds=_ARROW,
        description="The vocabularies: values of every categorical feature over the window, and their counts.",
        reading="One row per categorical feature and value. Look here if a vocabulary is larger than the catalogue.",
    ),
)
"""Each feature's values over the window, merged from partial counts of each day."""

_CONFIG = (
    _windowed(
        step=LazyStep("steps.feature_config", "feature_config"),
        deps=("feature_binning", "feature_counts"),
        description="Embedding width and boundaries, vocabulary or hash size of every feature.",
        reading="One row per feature. Read every `DROP IT` in `message` first: its feature is not trained on.",
    ),
    _windowed(
        step=LazyStep("steps.feature_config", "step_config"),
        deps=("training_window",),
        description="`__NUM_STEPS__`: training steps. `__DECAY_STEPS__`: with a falling learning rate, at the end.",
        reading="Two rows. num_steps is epochs x positives x epoch_frac / batch; fewer if positives are left out.",
        code_version="2",
    ),
    _windowed(
        step=LazyStep("steps.feature_config", "training_config"),
        deps=("feature_config", "step_config"),
        kinds=frozenset({"yaml"}),
        description="The whole training run as one YAML file: towers, features, loss, negatives, optimiser, seed.",
        reading="One file. Two runs that differ in any setting differ here: compare the files of two days.",
    ),
)
"""Decisions on features and training steps by the statistics, and the whole training configuration."""

_TRAINING = (
    _windowed(
        step=LazyStep("steps.training", "negative_items"),
        deps=("training_window", "item_features_fg"),
        description="The items that negatives are sampled from: weight (popularity^alpha) and encoded features.",
        reading="One row per item that can be recalled. alpha 0 samples uniformly, 1 by popularity.",
    ),
    _windowed(
        step=LazyStep("steps.training", "train_samples"),
        deps=("feature_config", "negative_items"),
        kinds=frozenset({"arrow"}),
        description="The window's positives, users' histories and corpus items as embedding indices, in memory-mapped files.",
        reading="One row per training sample. Many samples_outside_corpus are a sign of a stale item table.",
    ),
    _windowed(
        step=LazyStep("steps.dssm_model", "dssm_model"),
        deps=("training_config", "train_samples"),
        kinds=frozenset({"pytorch"}),
        pool=TRAINER,
        description="The user and the item tower: weights, manifest, loss curve. The configuration names loss and negatives.",
        reading="Look at the loss curve first. For other settings, name an `experiment` in the Launchpad. Trainings run one at "
        "a time (pool).",
    ),
)
"""Negatives, training rows, the two towers."""

_VECTOR_CHECKS = (
    CheckRow("structure", "One vector of output_dim finite floats, not all zeros, per row; ids are unique.", is_blocking=True),
    CheckRow("vector_drift", "Rotated to the previous partition, common ids' vectors have a mean cosine of at least 0.5."),
)
_VECTORS = (
    _windowed(
        step=LazyStep("steps.vectors", "item_vectors"),
        deps=("dssm_model",),
        kinds=frozenset({"pytorch", "parquet"}),
        checks=_VECTOR_CHECKS,
        description="item_id and item_tower_emb (float32).",
        reading="One row per corpus item. A jump of vector_drift is caused by a new model, not by new items.",
    ),
    _windowed(
        step=LazyStep("steps.vectors", "user_vectors"),
        deps=("dssm_model",),
        kinds=frozenset({"pytorch", "parquet"}),
        checks=_VECTOR_CHECKS,
        description="user_id and user_tower_emb (float32), with the history up to the end of the previous day.",
        reading="One row per user of the previous day. First-time users of the evaluation day have no vector.",
    ),
)
"""The outputs of both towers for the encoded features as of the previous day."""

_EVALUATION = (
    _windowed(
        step=LazyStep("steps.evaluation", "ground_truth"),
        deps=("positive_sample", "training_window"),
        day_deps=("positive_sample",),
        reads_span=True,
        description="Per user, the items of positive events on the evaluation day (or evaluation.span_days days), warm ones "
        "marked.",
        reading="One row per user with a positive event. With few warm users the interval of a hit rate is wide.",
    ),
    _windowed(
        step=LazyStep("steps.channel_weights", "channel_weights"),
        deps=("negative_items", "dssm_model"),
        code_version="3",
        description="The weight of each channel in the merged list, fitted on the model's validation days.",
        reading="One row per merged list and signal. The sum of weight times signal is the log-odds of a take.",
    ),
    _windowed(
        step=LazyStep("steps.scoring", "hit_counts"),
        deps=("ground_truth", "item_vectors", "user_vectors", "channel_weights"),
        kinds=frozenset({"faiss", "parquet"}),
        description="Hits of every user (or evaluation.max_users) at every k, for the model and each baseline.",
        reading="One row per scorer, scope, population and user. total_hit_rate sums them up at every k.",
    ),
    _windowed(
        step=LazyStep("steps.evaluation", "hit_rate_detail"),
        deps=("ground_truth", "item_vectors", "user_vectors"),
        kinds=frozenset({"faiss", "parquet"}),
        code_version="2",
        description="Per user: recalled items, hits, misses, hit rate, segments. The metadata have the rate of each segment.",
        reading="One row per user with ground truth. If one segment is worse than the others, look at its users here.",
    ),
    _windowed(
        step=LazyStep("steps.evaluation", "total_hit_rate"),
        deps=("hit_counts", "hit_rate_detail"),
        checks=(
            CheckRow("beats_popularity", "The model's warm hit_rate at the largest k is at least 1.2 times popularity's."),
            CheckRow(
                "hit_rate_gate",
                "The served list is not surely behind the best baseline on warm pairs, a merged list neither on all pairs, and its "
                "lead has not surely dropped since the last partitions. Days with few items to find pass. If it fails, "
                "serving_bundle does not run.",
                is_blocking=True,
            ),
        ),
        description="hit_rate@k of the merged list, the model and every baseline with 95% intervals, by population (warm, "
        "other, all users) and scope (all, discovery, repeat, new, unseen, cold items). The metadata have the gate's verdict, "
        "report and charts.",
        reading="One row per scorer, scope, population and k. Compare the model with popularity, with own history, then on "
        "unseen items: recall is there for them.",
    ),
)
"""Ground truth, exact search, hit rates with intervals and baselines."""

_SERVING = (
    _windowed(
        step=LazyStep("service.bundle.serving_bundle", "serving_bundle"),
        deps=(
            "total_hit_rate",
            "item_vectors",
            "user_vectors",
            "user_features_fg",
            "item_features_fg",
            "user_history_fg",
            "user_table",
            "item_table",
        ),
        day_deps=("user_features_fg", "item_features_fg", "user_history_fg", "user_table", "item_table"),
        kinds=frozenset({"onnx", "faiss", "arrow"}),
        pool="publisher",
        checks=(
            CheckRow("exported_towers", "The exported towers compute the vectors of the trained towers.", is_blocking=True),
            CheckRow("index_recall", "The index finds the required share of the exact lists at every k.", is_blocking=True),
        ),
        description="Everything that recall needs: towers as ONNX, feature definitions, configuration, item index, vectors of "
        "all users and items at the end of the day. It is published by moving one pointer, unless a check fails; previous "
        "bundles stay.",
        reading="One bundle. `dssm-assets rollback` serves the previous one again.",
    ),
)
"""The bundle: recall answers from it."""

ASSET_TABLE: dict[str, tuple[AssetRow, ...]] = {
    "source": _SOURCE,
    "features_raw": _FEATURES_RAW,
    "fg": _FG,
    "sample": _SAMPLE,
    "statistics": _STATISTICS,
    "config": _CONFIG,
    "training": _TRAINING,
    "vectors": _VECTORS,
    "evaluation": _EVALUATION,
    PUBLISHING_GROUP: _SERVING,
}
"""Group -> its assets."""
SAMPLE_GROUPS = frozenset({"sample", "statistics"})
"""Daily tables of these groups are needed for the days of a window. They read the features of the previous day."""


def expiring_groups() -> dict[str, str]:
    """Returns asset -> group for assets that `storage.keep_days` applies to: their old partitions may be removed."""
    return {row.name: row.group for row in declare_rows() if not row.is_log and not row.never_expires}


def all_rows(config: PipelineConfig | None = None) -> list[AssetRow]:
    """Returns every asset in pipeline order, then the assets of extras. Checks of plug-ins are included.

    An asset is `is_on_request` if no job of the configuration runs it. Assets that need a key are left out without it.

    Raises:
        ConfigError: a plug-in's check names an unknown asset, or the check's name cannot be used.
    """
    rows = declare_rows()
    check_names({row.name: {check.name for check in row.checks} for row in rows})
    rows = [row for row in rows if not row.needs or _find_key(config, row.needs) is not None]
    if config is not None and config.events.reads_shown:
        rows = [replace(row, deps=(*row.deps, SHOWN_EVENT)) if row.name == "train_samples" else row for row in rows]
    wanted = {row.section for row in rows if row.section and getattr(config, row.section, None) is not None}
    rows = [replace(row, is_on_request=False) if row.section in wanted else row for row in rows]
    return [replace(row, checks=(*row.checks, *added)) if (added := _added_checks(row)) else row for row in rows]


def declare_rows() -> list[AssetRow]:
    """Returns every asset in pipeline order, then the extras' assets. Assets that a configuration leaves out are included."""
    of_extras = (row for extra in load_all("rows") for row in extra.ROWS)
    return [*(replace(row, group=group) for group, rows in ASSET_TABLE.items() for row in rows), *of_extras]


def _find_key(config: PipelineConfig | None, key: str) -> Any:
    return reduce(lambda section, name: getattr(section, name, None), key.split("."), config)


def _added_checks(row: AssetRow) -> list[CheckRow]:
    return [CheckRow(name, one.description, one.is_blocking) for name, one in CHECKS.items() if one.asset == row.name]
