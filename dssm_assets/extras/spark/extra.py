"""What the extra `spark` adds."""

from dssm_assets.installed_extras import Extra

EXTRA = Extra()
