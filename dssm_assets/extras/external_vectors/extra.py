"""What the extra `external_vectors` adds."""

from dssm_assets.installed_extras import Extra

EXTRA = Extra(commands=("command",))
