"""The extra `bundle_delta`."""

from dssm_assets.installed_extras import Extra

EXTRA = Extra(definitions="definitions")
