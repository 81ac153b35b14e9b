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
        description="How much each group of features adds: hit rates on the validation days of towers fitted without it, over "
        "all items, over items new to the user, and over items without any event. No job runs it.",
        reading="One fit per group, each as long as the fit of dssm_model. If the rates do not fall without a group on several "
        "days, add its features to features.exclude.",
    ),
)
