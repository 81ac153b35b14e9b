"""What the extra `sampler_tables` adds."""

from dssm_assets.installed_extras import Extra

EXTRA = Extra(commands=("command",))
