"""Group evaluation: ground truth, exact search, hit rates with intervals and baselines."""

from dssm_assets.defs.asset_row import AssetRow, CheckRow
from dssm_assets.defs.lazy_steps import steps_of

evaluation = steps_of("evaluation")
channel_weights = steps_of("channel_weights")

_KINDS = frozenset({"faiss", "parquet"})

ROWS = (
    AssetRow(
        name="ground_truth",
        step=evaluation("ground_truth"),
        deps=("positive_sample", "training_window"),
        day_deps=("positive_sample",),
        reads_span=True,
        component="15",
        is_windowed=True,
        description="Per user, the items of positive events on the evaluation day (or the days of evaluation.span_days): which of them are warm, and which the user "
        "already interacted with in the window.",
        reading="One row per user with a positive event on the day. With few warm users the interval of a hit rate is wide.",
    ),
    AssetRow(
        name="channel_weights",
        step=channel_weights("channel_weights"),
        deps=("negative_items", "dssm_model"),
        is_windowed=True,
        kinds=frozenset({"parquet"}),
        code_version="3",
        description="How strongly each channel (vectors, own history, item to item, recent popularity) counts in the merged list: "
        "fitted on the interactions of the model's validation days and what each channel would have proposed on them. The "
        "weights are a table in the metadata.",
        reading="One row per merged list and signal. The list is ordered by the sum of weight times signal: the log-odds that the "
        "user interacts with the item.",
    ),
    AssetRow(
        name="hit_counts",
        step=evaluation("hit_counts"),
        deps=("ground_truth", "item_vectors", "user_vectors", "channel_weights"),
        component="18",
        is_windowed=True,
        kinds=_KINDS,
        description="Hits of every user (or of evaluation.max_users of them) at every k, for the model and each baseline, by scope "
        "and population.",
        reading="One row per scorer, scope, population and user. total_hit_rate sums them up at every k.",
    ),
    AssetRow(
        name="hit_rate_detail",
        step=evaluation("hit_rate_detail"),
        deps=("ground_truth", "item_vectors", "user_vectors"),
        component="18",
        is_windowed=True,
        kinds=_KINDS,
        code_version="2",
        description="Per user: recalled items, hits and misses, hit rate, configured segments. "
        "The model's hit rate of each segment, as a table and a chart, is in the metadata; total_hit_rate has the merged list's, too.",
        reading="One row per user with ground truth. Start here if one segment is worse than the others, then look at single users.",
    ),
    AssetRow(
        name="total_hit_rate",
        step=evaluation("total_hit_rate"),
        deps=("hit_counts", "hit_rate_detail"),
        component="18",
        is_windowed=True,
        checks=(
            CheckRow(
                "beats_popularity", "Warm hit_rate of the two-tower model at the largest k is at least 1.2 times popularity's."
            ),
            CheckRow(
                "hit_rate_gate",
                "What is served is not surely behind the best baseline of the report, nor has its lead over the baselines surely "
                "dropped since the last partitions: the interval of the warm hit_rate at the largest k decides (section gate). A day with few "
                "items to find is not enough evidence and passes. If it fails, serving_bundle does not run.",
                is_blocking=True,
            ),
        ),
        description="hit_rate@k of the merged list, the model and every baseline with 95% intervals, for warm, cold and all users; for all "
        "items, discovery, repeat, new and unseen items. The metadata begin with the hit rate of what is served, its gain over the best "
        "baseline and the gate's sentence; then the report (segments, properties of the lists, trend) and its charts.",
        reading="One row per scorer, scope, population and k. Compare the model with popularity, then with own history, then "
        "on unseen items, which are what recall is for. The report gives the gain over each baseline on the same users.",
    ),
)
