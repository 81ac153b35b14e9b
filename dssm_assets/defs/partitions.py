"""The days of a scene: one daily partitions definition that every asset of it shares."""

import datetime as dt
from zoneinfo import ZoneInfo

import dagster as dg

from dssm_assets.core.config import Calendar

SPARE_DAYS = 30
"""So many days after the calendar's end stay in plots, and so long may a backfill take: Dagster looks for its days as of the
moment it was asked for, with the offset of the code location's last start."""


def daily_partitions(calendar: Calendar, today: dt.date | None = None) -> dg.DailyPartitionsDefinition:
    """Returns the days from the calendar's start to its end (or up to yesterday), both included.

    Args:
        calendar: first and last day, and the time zone in which days begin.
        today: the date in that zone; None for the clock's.
    """
    if calendar.end is None:
        return dg.DailyPartitionsDefinition(start_date=calendar.start.isoformat(), timezone=calendar.timezone)
    return dg.DailyPartitionsDefinition(
        start_date=calendar.start.isoformat(),
        end_date=(calendar.end + dt.timedelta(days=1)).isoformat(),
        timezone=calendar.timezone,
        end_offset=-_days_to_hide(calendar.end, today or today_in(calendar.timezone)),
    )


def today_in(timezone: str) -> dt.date:
    """Returns the date that the clock shows in a time zone."""
    return dt.datetime.now(ZoneInfo(timezone)).date()


def _days_to_hide(last: dt.date, today: dt.date) -> int:
    """Returns how many of the days that have ended since the last one Dagster need not know.

    The end alone bounds the partitions. But the UI draws its plots over the latest 120 days, and Dagster counts those back from
    the clock, past the end: without the offset a calendar that ended long ago has empty plots.
    """
    return max(0, (today - last).days - 1 - SPARE_DAYS)
