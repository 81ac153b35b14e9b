"""What the extra `sampler_tables` adds."""

from dssm_assets.extras.registry import Extra

EXTRA = Extra(commands=("dssm_assets.extras.sampler_tables.command",))
