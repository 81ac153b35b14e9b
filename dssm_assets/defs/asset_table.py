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
        description="Users as of the day: ids as integers or text, profile columns unchanged. If the source is one snapshot "
        "without days, every day refers to the same file.",
        reading="One row per user. Look here first if user features are missing: a user without a row has none, and behavior "
        "counts it in unknown_users.",
    ),
    AssetRow(
        step=LazyStep("steps.source", "item_table"),
        is_log=True,
        description="Items as of the day, with their own columns (category, brand, price ...).",
        reading="One row per item. An item without a row can still be recalled, by its id alone. An item without "
        "interactions is a candidate too.",
    ),
    AssetRow(
        step=LazyStep("steps.source", "behavior_table"),
        is_log=True,
        description="The day's behavior log in canonical form: user, item, event and time (unix milliseconds), with value and "
        "context columns. Unknown event names, null ids and unexpected empty days are refused.",
        checks=(CheckRow("has_rows", "The day has events, or the configuration allows empty days.", is_blocking=True),),
        reading="One row per event. The metadata counts rows by event: a jump from one day to the next is usually a change in "
        "logging, not in user behavior.",
    ),
)
"""Your own three tables, mapped by the configuration."""

_FEATURES_RAW = (
    _table(
        step=LazyStep("steps.features_raw", "behavior"),
        deps=("behavior_table", "user_table", "item_table"),
        is_log=True,
        description="The day's log with hour, weekday and the item columns that histories and preferences use.",
        reading="One row per event of the day. In the metadata, unknown_users and unknown_items count users and items without a row "
        "in user_table or item_table.",
    ),
    _table(
        step=LazyStep("steps.features_raw", "user_activity"),
        deps=("behavior",),
        is_rolling=True,
        description="Rolling state per user and event: counts and value sums over 1, 3, 7, 15, 30 days and in total, first and "
        "last time. Computed as the previous day's state plus the day minus the day that leaves each window; rebuilt from all "
        "days if the previous day is missing.",
        reading="One row per user seen so far. Cheap if days are materialized in order, expensive for a single day: without the "
        "previous day it reads every earlier day.",
    ),
    _table(
        step=LazyStep("steps.features_raw", "item_activity"),
        deps=("behavior",),
        is_rolling=True,
        description="Rolling state per item and event, computed like user_activity.",
        reading="One row per item seen so far. Look at its counts before you blame a model for lists full of popular items.",
    ),
    _table(
        step=LazyStep("steps.features_raw", "pair_activity"),
        deps=("behavior",),
        is_rolling=True,
        description="The last day of each user, item and event within the longest window. Distinct counts are computed from it.",
        reading="One row per user, item and event. It is the largest rolling table: its row count bounds the cost of a day.",
    ),
    _table(
        step=LazyStep("steps.features_raw", "user_preferences"),
        deps=("behavior",),
        is_rolling=True,
        description="Per user, item column and value: positive events of the last days (category -> count), for lookup_feature.",
        reading="One row per user, item column and value. Empty unless raw_features.preference_columns names columns.",
    ),
    _table(
        step=LazyStep("steps.features_raw", "user_history"),
        deps=("behavior",),
        is_log=True,
        description="The day's positive items of each user in order of time, with item attributes. A longer history is read from "
        "several days, so each event is stored once.",
        reading="One row per user with a positive event on the day. Sequence features are computed from it; window.history_days "
        "sets how far back.",
    ),
    _table(
        step=LazyStep("steps.features_raw", "user_all_feature"),
        deps=("user_table", "user_activity", "pair_activity", "user_preferences"),
        description="Profile, counts, funnel ratios, distinct items, value sums, days since first and last event, and "
        "preferences of every user, as of the end of the day.",
        reading="One row per user. `user:` expressions in fg.json can name exactly its columns: see the column schema.",
    ),
    _table(
        step=LazyStep("steps.features_raw", "item_all_feature"),
        deps=("item_table", "item_activity", "pair_activity"),
        description="Source columns, counts, funnel ratios, distinct users, value sums, and days since first and last event of "
        "every item, as of the end of the day.",
        reading="One row per item. `item:` expressions in fg.json can name exactly its columns: see the column schema.",
    ),
)
"""Statistics, preferences and histories as of the end of each day, computed incrementally."""

_PARITY = CheckRow("fg_parity", "Golden rows of the day get the same features in bulk and as single requests.")
_FG = (
    _encoded(
        step=LazyStep("steps.sample", "item_features_fg"),
        deps=("item_all_feature",),
        component="6",
        feature_source="item_all_feature",
        description="Encoded item features: numbers as float32, categories as 64-bit hashes. They are not bucketized yet, so they "
        "depend on no window.",
        checks=(_PARITY,),
        reading="One row per item. If fg_parity names a column, a live request would see another value than training did: do "
        "not ship.",
    ),
    _encoded(
        step=LazyStep("steps.sample", "user_features_fg"),
        deps=("user_all_feature",),
        component="7",
        feature_source="user_all_feature",
        description="Encoded user features: numbers as float32, categories as 64-bit hashes, not bucketized yet.",
        checks=(_PARITY,),
        reading="One row per user. For a user who is not stored, the same generator computes the same features from a request.",
    ),
    _encoded(
        step=LazyStep("steps.sample", "user_history_fg"),
        deps=("user_history",),
        component="7",
        is_log=True,
        feature_source="user_history",
        description="The encoded sequence features for the day's part of each user's history.",
        checks=(_PARITY,),
        reading="One row per user with a positive event on the day, aligned with user_history: an event is encoded once, on "
        "its day.",
    ),
)
"""Features, generated once per entity and day, so that training and inference read the same encoded rows."""

_SAMPLE = (
    _table(
        step=LazyStep("steps.sample", "sample"),
        deps=("behavior",),
        component="1",
        description="The day's events as labelled samples: keys, event, time, hour, weekday, context. Label 1 is a positive event.",
        reading="One row per positive or exposure event (per event if no exposure event is configured). The share of label 1 is "
        "the day's conversion rate.",
    ),
    _table(
        step=LazyStep("steps.sample", "sample_fg"),
        deps=("sample", "user_features_fg", "item_features_fg"),
        component="2",
        checks=(
            CheckRow("no_leak", "No feature row is newer than the day before its sample.", is_blocking=True),
            CheckRow("fg_parity", "Golden rows of the day get the same context features in bulk and as single requests."),
        ),
        feature_source="sample",
        description="Samples joined with the encoded features of their user and item as of the previous day, plus context features.",
        reading="One row per sample. It refers to the feature rows of its user and item instead of copying them. "
        "rows_of_unknown_users and rows_of_unknown_items count samples that train on ids and context alone.",
    ),
    _encoded(
        step=LazyStep("steps.sample", "positive_sample"),
        deps=("sample_fg",),
        component="3",
        description="The samples with a positive event, which the towers are trained on. Negatives are sampled from the corpus.",
        reading="One row per positive event. An epoch reads the positives of window.days days.",
    ),
    _windowed(
        step=LazyStep("steps.sample", "training_window"),
        deps=("positive_sample", "numeric_value_counts", "category_value_counts", "user_history_fg"),
        checks=(CheckRow("window_complete", "Every day of the window is materialized.", is_blocking=True),),
        description="The days that the model of this evaluation day learns from, with row counts and digests. A launched run first "
        "makes the missing days. If days are still missing, the check names them and blocks everything downstream.",
        reading="One row per table and day of the window.",
    ),
)
"""Labelled rows with the features of the previous day, and the window to learn from."""

_STATISTICS = (
    _encoded(
        step=LazyStep("steps.statistics", "numeric_value_counts"),
        deps=("positive_sample",),
        component="4",
        description="Exact value counts of every numeric feature over the day's positives. feature_binning merges them.",
        reading="One row per feature and value. The window merges them without reading samples again.",
    ),
    _encoded(
        step=LazyStep("steps.statistics", "category_value_counts"),
        deps=("positive_sample",),
        component="5",
        description="Value counts of every categorical feature over the day's positives. feature_counts merges them.",
        reading="One row per feature and value. A feature that gains distinct values every day is really an id: hash it, or drop "
        "it.",
    ),
    _windowed(
        step=LazyStep("steps.statistics", "feature_binning"),
        deps=("training_window",),
        component="4",
        kinds=_ARROW,
        description="Exact equal-frequency boundaries of every numeric feature over the window; bins are [a, b).",
        reading="One row per numeric feature. A feature with one bin carries no information.",
    ),
    _windowed(
        step=LazyStep("steps.statistics", "feature_counts"),
        deps=("training_window",),
        component="5",
        kinds=_ARROW,
        description="Distinct values of every categorical feature over the window and their counts: the vocabularies.",
        reading="One row per categorical feature and value. Look here if a vocabulary is larger than the catalogue.",
    ),
)
"""Each feature's values over the window, merged from partial counts of each day."""

_CONFIG = (
    _windowed(
        step=LazyStep("steps.feature_config", "feature_config"),
        deps=("feature_binning", "feature_counts"),
        component="8",
        description="Embedding width and boundaries, vocabulary or hash size of every feature, as rows "
        "`feature, feature_info, message`. A message with `DROP IT` says why a feature is not trained on.",
        reading="One row per feature. Read every `DROP IT` before you read a hit rate: a dropped feature is the most "
        "frequent cause of a bad one.",
    ),
    _windowed(
        step=LazyStep("steps.feature_config", "step_config"),
        deps=("training_window",),
        component="8",
        description="`__NUM_STEPS__`, the number of training steps, and `__DECAY_STEPS__`, the number of last steps over which the "
        "learning rate decays. dssm_model follows both.",
        reading="Two rows. num_steps is epochs x positives x epoch_frac / batch. dssm_model takes fewer steps if min_history or "
        "the corpus leaves positives out; warm-up and decay are then scaled to these steps.",
        code_version="2",
    ),
    _windowed(
        step=LazyStep("steps.feature_config", "training_config"),
        deps=("feature_config", "step_config"),
        component="11",
        kinds=frozenset({"yaml"}),
        description="The whole training run as one readable YAML file: towers, features, loss, negatives, optimiser, seed.",
        reading="One file. Two runs that differ in any setting differ here: compare the files of two days.",
    ),
)
"""Decisions on features and training steps by the statistics, and the whole training configuration."""

_TRAINING = (
    _windowed(
        step=LazyStep("steps.training", "negative_items"),
        deps=("training_window", "item_features_fg"),
        component="9",
        description="The corpus that negatives are sampled from: item, weight (popularity^alpha) and encoded features, as of the "
        "previous day.",
        reading="One row per item that can be recalled. alpha 0 samples uniformly, 1 by popularity; the logQ correction removes "
        "the bias of the sampling from the scores.",
    ),
    _windowed(
        step=LazyStep("steps.training", "train_samples"),
        deps=("feature_config", "negative_items"),
        component="10",
        kinds=frozenset({"arrow"}),
        description="The window's positives with every value as an embedding index, all users' histories and all corpus items, "
        "as memory-mapped Arrow files. A sample stores only the end of its history.",
        reading="One row per training sample. samples_outside_corpus counts positives on items that cannot be recalled: many "
        "of them are a sign of a stale item table.",
    ),
    _windowed(
        step=LazyStep("steps.dssm_model", "dssm_model"),
        deps=("training_config", "train_samples"),
        component="12",
        kinds=frozenset({"pytorch"}),
        pool=TRAINER,
        description="The user and the item tower, trained with in-batch and sampled negatives in one softmax, logQ correction "
        "and collision mask. Holds weights, manifest and loss curve.",
        reading="Look at the loss curve first. To try other epochs, learning rates, temperatures and negatives, enter them in the "
        "Launchpad with an `experiment` name: the regular model does not change. Trainings run one at a time (pool).",
    ),
)
"""Negatives, training rows, the two towers."""

_DRIFT = CheckRow(
    "vector_drift",
    "Compared with the previous partition after aligning it by a rotation, the vectors of common ids have a mean cosine of at "
    "least 0.5.",
)
_VECTORS = (
    _windowed(
        step=LazyStep("steps.vectors", "item_vectors"),
        deps=("dssm_model",),
        component="13",
        kinds=frozenset({"pytorch", "parquet"}),
        checks=(
            CheckRow(
                "structure",
                "One vector of output_dim floats per corpus item; ids are unique, no vector is null, non-finite or all zeros.",
                is_blocking=True,
            ),
            _DRIFT,
        ),
        description="item_id and item_tower_emb (float32), one row per corpus item.",
        reading="One row per item. vector_drift compares with the previous day after a rotation: a jump is caused by a new model, "
        "not by new items.",
    ),
    _windowed(
        step=LazyStep("steps.vectors", "user_vectors"),
        deps=("dssm_model",),
        component="14",
        kinds=frozenset({"pytorch", "parquet"}),
        checks=(
            CheckRow(
                "structure",
                "One vector of output_dim floats per user of the previous day; ids are unique, no vector is null, non-finite or all "
                "zeros.",
                is_blocking=True,
            ),
            _DRIFT,
        ),
        description="user_id and user_tower_emb (float32), one row per user, with the history up to the end of the previous day.",
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
        component="15",
        description="Per user, the items of positive events on the evaluation day (or the days of evaluation.span_days). Each item is "
        "marked if it is warm, and if the user already interacted with it in the window.",
        reading="One row per user with a positive event on the day. With few warm users the interval of a hit rate is wide.",
    ),
    _windowed(
        step=LazyStep("steps.channel_weights", "channel_weights"),
        deps=("negative_items", "dssm_model"),
        code_version="3",
        description="The weight of each channel (vectors, own history, item to item, recent popularity) in the merged list. Weights are "
        "fitted on the model's validation days: to the interactions, and to the items that each channel would have proposed. The "
        "metadata show them as a table.",
        reading="One row per merged list and signal. The list is ordered by the sum of weight times signal, the log-odds that the "
        "user interacts with the item.",
    ),
    _windowed(
        step=LazyStep("steps.scoring", "hit_counts"),
        deps=("ground_truth", "item_vectors", "user_vectors", "channel_weights"),
        component="18",
        kinds=frozenset({"faiss", "parquet"}),
        description="Hits of every user (or of evaluation.max_users users) at every k, for the model and each baseline, by scope "
        "and population.",
        reading="One row per scorer, scope, population and user. total_hit_rate sums them up at every k.",
    ),
    _windowed(
        step=LazyStep("steps.evaluation", "hit_rate_detail"),
        deps=("ground_truth", "item_vectors", "user_vectors"),
        component="18",
        kinds=frozenset({"faiss", "parquet"}),
        code_version="2",
        description="Per user: recalled items, hits and misses, hit rate, configured segments. "
        "The model's hit rate of each segment, as a table and a chart, is in the metadata; total_hit_rate has the merged list's, too.",
        reading="One row per user with ground truth. Start here if one segment is worse than the others, then look at single users.",
    ),
    _windowed(
        step=LazyStep("steps.evaluation", "total_hit_rate"),
        deps=("hit_counts", "hit_rate_detail"),
        component="18",
        checks=(
            CheckRow(
                "beats_popularity", "Warm hit_rate of the two-tower model at the largest k is at least 1.2 times popularity's."
            ),
            CheckRow(
                "hit_rate_gate",
                "The served list is not surely behind the report's best baseline, and its lead over the baselines has not surely dropped "
                "since the last partitions. The interval of the warm hit_rate at the largest k decides (section gate). The merged list must "
                "not be behind over all users and items, either. A day with few items to find passes: it is not enough evidence. If the "
                "check fails, serving_bundle does not run.",
                is_blocking=True,
            ),
        ),
        description="hit_rate@k of the merged list, the model and every baseline with 95% intervals, for warm, other and all users, and for "
        "all, discovery, repeat, new and unseen items. The metadata begin with the served list's hit rate, its gain over the best baseline "
        "and the gate's verdict. The report (segments, properties of the lists, trend) and its charts follow.",
        reading="One row per scorer, scope, population and k. Compare the model with popularity, then with own history, then "
        "on unseen items, because these are the purpose of recall. The report gives the gain over each baseline on the same users.",
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
            CheckRow(
                "exported_towers",
                "The exported towers, run from their files with onnxruntime, compute the same vectors as the trained towers.",
                is_blocking=True,
            ),
            CheckRow(
                "index_recall",
                "The index finds at least the required share of the exact lists at every evaluation.k.",
                is_blocking=True,
            ),
        ),
        description="Everything that recall needs to answer: both towers as ONNX, feature definitions and configuration, the item index "
        "with its measured recall, and vectors of all users and items as of the end of the day. Publishing moves one pointer and "
        "keeps the previous bundles. A bundle is not published if a check fails.",
        reading="One bundle. `dssm-assets rollback` serves the previous one again. index_recall in the metadata is the share of "
        "the exact lists that the index finds.",
    ),
)
"""The bundle, from which recall answers."""

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
    """Returns every asset in pipeline order, then those of extras, whether a configuration has them or not."""
    of_extras = (row for extra in load_all("rows") for row in extra.ROWS)
    return [*(replace(row, group=group) for group, rows in ASSET_TABLE.items() for row in rows), *of_extras]


def _find_key(config: PipelineConfig | None, key: str) -> Any:
    return reduce(lambda section, name: getattr(section, name, None), key.split("."), config)


def _added_checks(row: AssetRow) -> list[CheckRow]:
    return [CheckRow(name, one.description, one.is_blocking) for name, one in CHECKS.items() if one.asset == row.name]
