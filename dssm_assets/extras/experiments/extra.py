"""What the extra `experiments` adds."""

from dssm_assets.extras.registry import Extra

EXTRA = Extra(
    commands=(
        "dssm_assets.extras.experiments.experiment_command",
        "dssm_assets.extras.experiments.tune_command",
    )
)
