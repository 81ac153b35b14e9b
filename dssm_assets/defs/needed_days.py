"""Which days of which assets an asset needs: what `--with-upstream` and the demo make before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dssm_assets.defs.asset_row import AssetRow
from dssm_assets.defs.asset_table import SAMPLE_GROUPS
from dssm_assets.steps.workspace import day_before, truth_days, window_days


@dataclass
class NeededDays:
    """The days that an asset needs of each daily table, and the windowed assets of its own day.

    A log is needed from the calendar's start, because histories are read across days; a log itself needs its own days. Samples are
    needed for the days of the window, and for the day itself where it is scored; features as of the day before a sample.

    Example: with a window of 6 days, total_hit_rate of January 12th needs behavior of the 1st to the 12th, sample_fg of the 6th
    to the 12th, user_features_fg of the 5th to the 11th, and dssm_model of the 12th.

    Attributes:
        start: first day of the calendar; no day before it is needed.
        window: length of the training window in days.
        span: days whose interactions are the truth of the day, from the day on.
        daily: asset -> first and last day.
        windowed: assets of the day itself, in pipeline order.
    """

    rows: Mapping[str, AssetRow]
    start: str
    window: int
    span: int = 1
    daily: dict[str, tuple[str, str]] = field(default_factory=dict)
    windowed: list[str] = field(default_factory=list)

    def add(self, names: Sequence[str], ds: str) -> None:
        """Adds what some assets of a day need, themselves included."""
        wanted = {name for name in names if self.rows[name].is_windowed}
        for name in reversed(self.rows):
            if name in wanted:
                wanted |= {dep for dep in self.rows[name].deps if self.rows[dep].is_windowed}
        self.windowed = [name for name in self.rows if name in wanted or name in self.windowed]
        for name in names:
            if not self.rows[name].is_windowed:
                self._add_days(name, ds, ds, is_of_log=True)
        for name in sorted(wanted):
            for dep in self.rows[name].deps:
                if dep in self.rows[name].day_deps:
                    self._add_days(dep, ds, truth_days(ds, self.span)[-1] if self.rows[name].reads_span else ds)
                elif not self.rows[dep].is_windowed:
                    window = window_days(ds, self.window)
                    self._add_days(dep, window[0], window[-1])
        if wanted:
            self._add_features_of_previous_day(ds)

    def _add_features_of_previous_day(self, ds: str) -> None:
        """Adds the features that vectors are computed from."""
        for name in list(self.daily):
            row = self.rows[name]
            if not row.is_log and row.group not in SAMPLE_GROUPS:
                self._add_days(name, day_before(ds), day_before(ds))

    def _add_days(self, name: str, first: str, last: str, *, is_of_log: bool = False) -> None:
        """Adds days of a daily table and what they need.

        Args:
            is_of_log: these days alone are asked for, also of a log.
        """
        row = self.rows[name]
        first = self.start if row.is_log and not is_of_log else max(first, self.start)
        if last < first:
            return  # before the calendar
        known = self.daily.get(name)
        if known is not None:
            first, last = min(first, known[0]), max(last, known[1])
        if known == (first, last):
            return
        self.daily[name] = (first, last)
        is_sample = row.group in SAMPLE_GROUPS
        for dep in row.deps:
            is_of_previous_day = is_sample and self.rows[dep].group not in SAMPLE_GROUPS and not self.rows[dep].is_log
            if is_of_previous_day:
                self._add_days(dep, day_before(first), day_before(last))
            else:
                self._add_days(dep, first, last, is_of_log=row.is_log)


def needed_days(rows: Sequence[AssetRow], names: Sequence[str], ds: str, start: str, window: int, span: int = 1) -> NeededDays:
    """Returns what some assets of a day need, themselves included."""
    needed = NeededDays({row.name: row for row in rows}, start, window, span)
    needed.add(names, ds)
    return needed
