"""Tables of both formats."""

from dssm_assets_tests.extras.lakehouses.lakes import lake  # noqa: F401
