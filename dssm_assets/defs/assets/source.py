"""Group source: the user's own three tables, mapped by configuration."""

from dssm_assets.defs.asset_factory import AssetRow, CheckRow
from dssm_assets.defs.lazy_steps import steps_of

source = steps_of("source")

GROUP = "source"

ROWS = (
    AssetRow(
        name="user_table",
        group=GROUP,
        step=source.user_table,
        kinds=frozenset({"parquet"}),
        description="Users as they were on the day, one row each: ids as integers or text, profile columns as they came. "
        "Where the source is one snapshot without days, every day names the same file.",
        reading="One row per user. Look here first when user features are missing: a user without a row has none, and is "
        "counted as unknown_users in behavior.",
    ),
    AssetRow(
        name="item_table",
        group=GROUP,
        step=source.item_table,
        kinds=frozenset({"parquet"}),
        description="Items as they were on the day, one row each, with their own columns (category, brand, price ...).",
        reading="One row per item. Items that are not here can still be recalled, by id alone; what is here and never "
        "taken is a candidate too.",
    ),
    AssetRow(
        name="behavior_table",
        group=GROUP,
        step=source.behavior_table,
        kinds=frozenset({"parquet"}),
        description="The day's behaviour log in canonical form: who did what to which item and when (unix milliseconds), "
        "with value and context columns. Unknown event names, null ids and unexpected empty days are refused.",
        checks=(CheckRow("has_rows", "The day has behaviour, or the configuration allows it to have none.", is_blocking=True),),
        reading="One row per thing a user did. The metadata counts rows by event: a jump from one day to the next is a "
        "change in logging before it is a change in people.",
    ),
)
