"""Group config: what the statistics decide about features and training steps, and the whole training configuration."""

from dssm_assets.defs.asset_row import AssetRow
from dssm_assets.defs.lazy_steps import steps_of

feature_config = steps_of("feature_config")

ROWS = (
    AssetRow(
        name="feature_config",
        step=feature_config("feature_config"),
        deps=("feature_binning", "feature_counts"),
        component="8",
        is_windowed=True,
        description="Embedding width and boundaries, vocabulary or hash size of every feature, as rows "
        "`feature, feature_info, message`. A message with `DROP IT` says why a feature is not trained on.",
        reading="One row per feature. Read every `DROP IT` before you read a hit rate: a dropped feature is the most "
        "frequent cause of a bad one.",
    ),
    AssetRow(
        name="step_config",
        step=feature_config("step_config"),
        deps=("training_window",),
        component="8",
        is_windowed=True,
        description="`__NUM_STEPS__`, the number of training steps, and `__DECAY_STEPS__`, the number of last steps over which the "
        "learning rate decays. dssm_model follows both.",
        reading="Two rows. num_steps is epochs x positives x epoch_frac / batch. dssm_model takes fewer steps if min_history or "
        "the corpus leaves positives out; warm-up and decay are then scaled to those steps.",
        code_version="2",
    ),
    AssetRow(
        name="training_config",
        step=feature_config("training_config"),
        deps=("feature_config", "step_config"),
        component="11",
        is_windowed=True,
        kinds=frozenset({"yaml"}),
        description="The whole training run as one readable YAML file: towers, features, loss, negatives, optimiser, seed.",
        reading="One file. Two runs that differ in any setting differ here: compare the files of two days.",
    ),
)
