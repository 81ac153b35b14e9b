"""Leaves out the tests of benchmarks whose extras are not installed."""

from dssm_assets.installed_extras import find_extras

NEEDED = {"test_campaign.py": {"retention"}, "test_guard.py": {"external_vectors", "sampler_tables"}}

collect_ignore = [file for file, extras in NEEDED.items() if not extras <= find_extras().keys()]
