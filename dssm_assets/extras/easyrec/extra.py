"""What the extra `easyrec` adds."""

from dssm_assets.extras.registry import Extra

EXTRA = Extra(commands=("dssm_assets.extras.easyrec.command",))
