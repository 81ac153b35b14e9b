"""What the extra `retention` adds."""

from dssm_assets.installed_extras import Extra

EXTRA = Extra(commands=("command",), definitions="definitions", run_start="cleaning")
