"""What the extra `retention` adds."""

from dssm_assets.extras.registry import Extra

EXTRA = Extra(commands=("dssm_assets.extras.retention.command",))
