"""Reports the progress of long work: units done, units per second, seconds left."""

from collections.abc import Callable
from typing import Final

PROGRESS_SECONDS: Final = 5.0
"""Seconds between progress lines."""


def keep_interval(begin: float, seconds: float = PROGRESS_SECONDS) -> Callable[[float], bool]:
    """Returns a function of the time in seconds. It is true once `seconds` have passed since `begin`, or since it was last true."""
    last = begin

    def is_due(now: float) -> bool:
        nonlocal last
        is_over = now - last >= seconds
        last = now if is_over else last
        return is_over

    return is_due


def count_progress(
    log: Callable[[str], None], now: Callable[[], float], total: int | None, unit: str, *, done: int = 0, is_about: bool = False
) -> Callable[[int], None]:
    """Returns a function to call with the number of units just done. Every few seconds it logs the total, the rate and the ETA.

    Args:
        now: a clock, in seconds.
        total: units in all. None: unknown, so there is no ETA.
        done: units done before the start; the rate leaves them out.
        is_about: whether the total is an estimate.
    """
    begin, before = now(), done
    is_due = keep_interval(begin)

    def count(units: int) -> None:
        nonlocal done
        done, at = done + units, now()
        if done == total or not is_due(at):
            return
        rate = max(done - before, 1e-9) / (at - begin)
        of, eta = (
            ("", "")
            if total is None
            else (f"{' of about ' if is_about else '/'}{total:,}", f", ETA {max(0, total - done) / rate:.0f} s")
        )
        log(f"{done:,}{of} {unit}, {rate:,.{0 if rate >= 100 else 2}f} {unit}/s{eta}")

    return count
