"""Group training: negatives, training rows, the two towers."""

from dssm_assets.defs.asset_row import TRAINER, AssetRow
from dssm_assets.defs.lazy_steps import steps_of

training = steps_of("training")
dssm_model = steps_of("dssm_model")
feature_importance = steps_of("feature_importance")

ROWS = (
    AssetRow(
        name="negative_items",
        step=training("negative_items"),
        deps=("training_window", "item_features_fg"),
        component="9",
        is_windowed=True,
        description="The corpus that negatives are sampled from: item, weight (popularity^alpha) and encoded features, as of the "
        "previous day.",
        reading="One row per item that can be recalled. alpha 0 samples uniformly, 1 by popularity; the logQ correction removes "
        "the bias of the sampling from the scores.",
    ),
    AssetRow(
        name="train_samples",
        step=training("train_samples"),
        deps=("feature_config", "negative_items"),
        component="10",
        is_windowed=True,
        kinds=frozenset({"arrow"}),
        description="The window's positives with every value as an embedding index, all users' histories and all corpus items, "
        "as memory-mapped Arrow files. A sample stores only the end of its history.",
        reading="One row per training sample. samples_outside_corpus counts positives on items that cannot be recalled: many "
        "of them are a sign of a stale item table.",
    ),
    AssetRow(
        name="dssm_model",
        step=dssm_model("dssm_model"),
        deps=("training_config", "train_samples"),
        component="12",
        is_windowed=True,
        kinds=frozenset({"pytorch"}),
        pool=TRAINER,
        description="The user and the item tower, trained with in-batch and sampled negatives in one softmax, logQ correction "
        "and collision mask. Holds weights, manifest and loss curve.",
        reading="Look at the loss curve first. To try other epochs, learning rates, temperatures and negatives, enter them in the "
        "Launchpad with an `experiment` name: the regular model does not change. Trainings run one at a time (pool).",
    ),
    AssetRow(
        name="feature_importance",
        step=feature_importance("feature_importance"),
        deps=("training_config", "train_samples"),
        is_windowed=True,
        is_on_request=True,
        pool=TRAINER,
        description="What each group of features is worth: hit rates on the validation days of towers that were fitted without it, "
        "of all items, of items new to the user, and of items without any event. No job runs it.",
        reading="One fit per group: it takes as many times as long as dssm_model. A group that is worth nothing, or less, on several "
        "days can go to features.exclude.",
    ),
)
