"""The days of a scene: one daily partitions definition that every asset of it shares."""

import datetime as dt
from zoneinfo import ZoneInfo

import dagster as dg

from dssm_assets.core.config import Calendar


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
        end_offset=-_days_since(calendar.end, today or dt.datetime.now(ZoneInfo(calendar.timezone)).date()),
    )


def _days_since(last: dt.date, today: dt.date) -> int:
    """Returns how many whole days have ended since the last one, 0 where it has not.

    The end alone bounds the partitions. But the UI draws its plots over the latest days, and Dagster counts those back from the
    clock, past the end: without the offset a calendar that ended 120 days ago has empty plots.
    """
    return max(0, (today - last).days - 1)
