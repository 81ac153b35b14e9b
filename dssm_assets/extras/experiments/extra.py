"""What the extra `experiments` adds."""

from dssm_assets.installed_extras import Extra

EXTRA = Extra(commands=("experiment_command", "tune_command"), rows="rows", forms="forms", runs="runs")
