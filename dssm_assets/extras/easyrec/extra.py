"""What the extra `easyrec` adds."""

from dssm_assets.installed_extras import Extra

EXTRA = Extra(commands=("command",))
