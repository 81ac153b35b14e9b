"""The row of the asset `experiments`, which compares the experiments of a day."""

from dssm_assets.defs.asset_row import AssetRow
from dssm_assets.defs.assets.evaluation import GROUP
from dssm_assets.defs.lazy_steps import LazyStep

NAME = "experiments"

ROWS = (
    AssetRow(
        name=NAME,
        group=GROUP,
        step=LazyStep("extras.experiments.experiments", "experiments"),
        deps=("total_hit_rate",),
        is_windowed=True,
        never_expires=True,
        description="The day's experiments next to the regular run (row `regular`): changed settings, warm hit_rate@k with its "
        "interval, gain. To run one, materialize dssm_model and its downstream assets up to here with an `experiment` name and "
        "other settings in the Launchpad. The regular partitions do not change.",
        reading="One row per experiment, scope and k. A gain within the interval is no gain. Confirm a good one on other "
        "days before you write it into the configuration.",
    ),
)
