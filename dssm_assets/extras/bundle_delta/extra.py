"""What the extra `bundle_delta` adds."""

from dssm_assets.installed_extras import Extra

EXTRA = Extra(definitions="definitions")
