"""Lines of progress: when they come, and what they say."""

from dssm_assets.core.progress import count_progress, keep_interval


def _tell(seconds: list[float], counts: list[int], total: int | None, done: int = 0, *, is_about: bool = False) -> list[str]:
    """Returns the lines if the clock begins at the first of some seconds, and shows the next one at each count."""
    lines: list[str] = []
    count = count_progress(lines.append, iter(seconds).__next__, total, "rows", done=done, is_about=is_about)
    for units in counts:
        count(units)
    return lines


def test_a_line_comes_five_seconds_after_the_last_one_and_none_at_the_end() -> None:
    assert _tell([10, 14.9, 15, 19, 21, 40], [200, 800, 100, 400, 500], 2000) == [
        "1,000/2,000 rows, 200 rows/s, ETA 5 s",
        "1,500/2,000 rows, 136 rows/s, ETA 4 s",
    ]


def test_the_rate_leaves_out_what_was_done_before() -> None:
    assert _tell([0, 6], [3], 13, done=4) == ["7/13 rows, 0.50 rows/s, ETA 12 s"]


def test_without_a_total_there_is_no_eta_and_rows_beyond_it_take_no_time() -> None:
    assert _tell([0, 5], [1000], None) == ["1,000 rows, 200 rows/s"]
    assert _tell([0, 5], [1000], 2000, is_about=True) == ["1,000 of about 2,000 rows, 200 rows/s, ETA 5 s"]
    assert _tell([0, 5], [1000], 900) == ["1,000/900 rows, 200 rows/s, ETA 0 s"]


def test_an_interval_begins_when_the_last_one_was_due() -> None:
    assert list(map(keep_interval(10), [14, 15, 19, 21, 26])) == [False, True, False, True, True]
    assert keep_interval(0, seconds=1)(1)
