"""Group source: your own three tables, mapped by the configuration."""

from dssm_assets.defs.asset_row import AssetRow, CheckRow
from dssm_assets.defs.lazy_steps import steps_of

source = steps_of("source")

ROWS = (
    AssetRow(
        name="user_table",
        step=source("user_table"),
        kinds=frozenset({"parquet"}),
        is_log=True,
        description="Users as of the day: ids as integers or text, profile columns unchanged. If the source is one snapshot "
        "without days, every day refers to the same file.",
        reading="One row per user. Look here first if user features are missing: a user without a row has none, and behavior "
        "counts it in unknown_users.",
    ),
    AssetRow(
        name="item_table",
        step=source("item_table"),
        kinds=frozenset({"parquet"}),
        is_log=True,
        description="Items as of the day, with their own columns (category, brand, price ...).",
        reading="One row per item. An item without a row can still be recalled, by its id alone. An item without "
        "interactions is a candidate too.",
    ),
    AssetRow(
        name="behavior_table",
        step=source("behavior_table"),
        kinds=frozenset({"parquet"}),
        is_log=True,
        description="The day's behaviour log in canonical form: user, item, event and time (unix milliseconds), with value and "
        "context columns. Unknown event names, null ids and unexpected empty days are refused.",
        checks=(CheckRow("has_rows", "The day has events, or the configuration allows empty days.", is_blocking=True),),
        reading="One row per event. The metadata counts rows by event: a jump from one day to the next is usually a change in "
        "logging, not in user behaviour.",
    ),
)
