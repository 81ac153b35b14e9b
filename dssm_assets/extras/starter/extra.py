"""What the extra `starter` adds."""

from dssm_assets.installed_extras import Extra

EXTRA = Extra(commands=("init_command", "validate_command"))
