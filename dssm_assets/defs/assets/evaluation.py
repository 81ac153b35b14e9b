"""Group evaluation: the day's truth, the exact search, the hit rate with its interval and its baselines."""

from dssm_assets.defs.asset_factory import AssetRow, CheckRow
from dssm_assets.defs.experiments import EvaluationSettings
from dssm_assets.defs.lazy_steps import steps_of

evaluation = steps_of("evaluation")
experiments = steps_of("experiments")

GROUP = "evaluation"
_KINDS = frozenset({"faiss", "parquet"})

ROWS = (
    AssetRow(
        name="ground_truth",
        group=GROUP,
        step=evaluation.ground_truth,
        deps=("positive_sample", "training_window"),
        component="15",
        is_windowed=True,
        description="Per user: the items taken on the evaluation day, which of them are warm and which are repeats of the window.",
        reading="One row per user with a positive event on the day. Few warm users make a wide interval: read hit rates "
        "with it.",
    ),
    AssetRow(
        name="hit_counts",
        group=GROUP,
        step=evaluation.hit_counts,
        deps=("ground_truth", "item_vectors", "user_vectors"),
        component="18",
        is_windowed=True,
        settings=EvaluationSettings,
        kinds=_KINDS,
        description="Hits of every user (or of evaluation.max_users) at every k, for the model and each baseline, by scope and population: what the totals add up.",
        reading="One row per scorer, scope, population and user. Sums of these are total_hit_rate, at every k.",
    ),
    AssetRow(
        name="hit_rate_detail",
        group=GROUP,
        step=evaluation.hit_rate_detail,
        deps=("ground_truth", "item_vectors", "user_vectors"),
        component="18",
        is_windowed=True,
        settings=EvaluationSettings,
        kinds=_KINDS,
        code_version="2",
        description="One row per user with truth: what was recalled, what of it was taken, what not, hit rate, configured segments. "
        "The hit rate of each segment, as a table and a chart, is in the metadata.",
        reading="One row per user with truth. Start here when one segment is worse than the others, then open single users.",
    ),
    AssetRow(
        name="total_hit_rate",
        group=GROUP,
        step=evaluation.total_hit_rate,
        deps=("hit_counts", "hit_rate_detail"),
        component="18",
        is_windowed=True,
        settings=EvaluationSettings,
        is_watched=True,
        checks=(
            CheckRow("beats_popularity", "warm hit_rate at the largest k is at least 1.2 times popularity's."),
            CheckRow(
                "hit_rate_gate",
                "The interval of the warm hit_rate at the largest k leaves it possible that the model is as good as the best "
                "baseline and as the last partitions (section gate). A failure keeps serving_bundle from being made.",
                is_blocking=True,
            ),
        ),
        description="hit_rate@k of the model and of every baseline with 95% intervals: warm, cold, all; all items, discovery, "
        "repeat. The report (segments, what the lists are like, trend) and its charts are in the metadata.",
        reading="One row per scorer, scope, population and k. Read in this order: the model against popularity, then "
        "against own history, then discovery, where recall earns its keep. The report says by how much on "
        "the same users.",
    ),
    AssetRow(
        name="experiments",
        group=GROUP,
        step=experiments.experiments,
        deps=("total_hit_rate",),
        is_windowed=True,
        description="The day's experiments beside what the configuration made: changed settings, warm hit_rate@k with its interval, "
        "gain. Materialize dssm_model and what is behind it, up to here, with an `experiment` name and other settings in the "
        "Launchpad; the standing partitions stay as they are.",
        reading="One row per experiment, scope and k. A gain inside the interval is none; confirm a good one on other "
        "days before writing it into the configuration.",
    ),
)
