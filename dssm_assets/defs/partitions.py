"""The days of a scene: one daily partitions definition that every asset of it shares."""

import datetime as dt

import dagster as dg

from dssm_assets.core.config import Calendar


def daily_partitions(calendar: Calendar) -> dg.DailyPartitionsDefinition:
    """Returns the days from the calendar's start to its end (or up to yesterday), both included."""
    end = None if calendar.end is None else (calendar.end + dt.timedelta(days=1)).isoformat()
    return dg.DailyPartitionsDefinition(start_date=calendar.start.isoformat(), end_date=end, timezone=calendar.timezone)
