"""The rows of the assets `shown` and `online_rates`."""

from dssm_assets.defs.asset_row import AssetRow, CheckRow, LazyStep

ROWS = (
    AssetRow(
        group="sample",
        step=LazyStep("extras.shown.shown_day", "shown"),
        is_on_request=True,
        never_expires=True,
        needs="serving.shown",
        description="What was answered and shown on the day, from the log of `serving.shown`. A list that a caller sent back replaces "
        "the answer's. The sensor of the log makes a day again when parts of it come late.",
        reading="One row per item of a list. As `events.exposure: [shown]` what was shown and not taken trains as hard negatives.",
    ),
    AssetRow(
        group="evaluation",
        step=LazyStep("extras.shown.rates_step", "online_rates"),
        deps=("shown", "behavior_table"),
        is_on_request=True,
        needs="evaluation.shown",
        checks=(
            CheckRow(
                "sample_ratio",
                "The people of each variant are as many as its share says (p at least .0005): else none is compared.",
            ),
        ),
        description="Takes of shown items by variant, on the day and on up to 7 and 28 days: rates, the difference from the "
        "first variant with its 95% interval, and beside it the hit rate that the bundle's evaluation promised.",
        reading="Read the sentence first. A day is made again when events of the next days, in which takes may follow, are stored.",
    ),
)
