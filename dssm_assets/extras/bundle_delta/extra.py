"""What the extra `bundle_delta` adds."""

from dssm_assets.extras.registry import Extra

EXTRA = Extra()
