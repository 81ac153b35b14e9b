"""What the extra `spark` adds."""

from dssm_assets.extras.registry import Extra

EXTRA = Extra()
