"""Group config: what the statistics decide about features, steps and the training run."""

from dssm_assets.defs.asset_factory import AssetRow
from dssm_assets.defs.lazy_steps import steps_of

feature_config = steps_of("feature_config")

GROUP = "config"

ROWS = (
    AssetRow(
        name="feature_config",
        group=GROUP,
        step=feature_config.feature_config,
        deps=("feature_binning", "feature_counts"),
        component="8",
        is_windowed=True,
        description="Rows `feature, feature_info, message`: embedding width and boundaries, vocabulary or hash size of every "
        "feature. `DROP IT` in the message says why a feature is not trained on.",
        reading="One row per feature. Read every `DROP IT` before reading a hit rate: a dropped feature is the most "
        "frequent cause of a bad one.",
    ),
    AssetRow(
        name="step_config",
        group=GROUP,
        step=feature_config.step_config,
        deps=("training_window",),
        component="8",
        is_windowed=True,
        description="Rows `__NUM_STEPS__` and `__DECAY_STEPS__`: how many batches the run takes, and over how many of them, the last, "
        "the learning rate falls; the fit follows it.",
        reading="Two rows. num_steps is epochs x positives x epoch_frac / batch: dssm_model takes as many steps, or fewer where "
        "min_history or the corpus leave positives out; warm-up and decay are then spread over those.",
        code_version="2",
    ),
    AssetRow(
        name="training_config",
        group=GROUP,
        step=feature_config.training_config,
        deps=("feature_config", "step_config"),
        component="11",
        is_windowed=True,
        kinds=frozenset({"yaml"}),
        description="The whole training run as one YAML file a person can read: towers, features, loss, negatives, optimiser, seed.",
        reading="One file. Two runs that differ anywhere differ here: put the reports of two days side by side.",
    ),
)
