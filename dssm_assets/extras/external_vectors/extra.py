"""What the extra `external_vectors` adds."""

from dssm_assets.extras.registry import Extra

EXTRA = Extra(commands=("dssm_assets.extras.external_vectors.command",))
