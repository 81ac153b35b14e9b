"""What the extra `starter` adds."""

from dssm_assets.extras.registry import Extra

EXTRA = Extra(
    commands=(
        "dssm_assets.extras.starter.init_command",
        "dssm_assets.extras.starter.validate_command",
    )
)
