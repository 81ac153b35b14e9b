"""The row of the asset `feature_importance`."""

from dssm_assets.defs.asset_row import TRAINER, AssetRow, LazyStep

ROWS = (
    AssetRow(
        group="training",
        step=LazyStep("extras.feature_importance.importance_step", "feature_importance"),
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
