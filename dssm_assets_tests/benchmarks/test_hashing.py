"""The hashing benchmark on tiny data: it runs and fills its tables; times are not asserted."""

from __future__ import annotations

import pytest

from dssm_assets_tests.benchmarks import hashing


def test_both_tables_are_filled(capsys: pytest.CaptureFixture[str]) -> None:
    hashing.main(["--strings", "500", "--rows", "3000"])
    tables = [block.splitlines() for block in capsys.readouterr().out.split("\n\n")]
    assert [len(table) for table in tables] == [1, 1 + len(hashing.LENGTHS), 1, 4]
    assert [line.split()[0] for line in tables[1][1:]] == ["8", "16", "40", "200", "8-20", "1-64"]
    assert all(int(line.split()[-1].replace(",", "")) > 0 for table in (tables[1], tables[3]) for line in table[1:])


def test_random_texts_have_the_requested_lengths() -> None:
    texts = hashing.random_texts(200, 3, 5)
    assert {len(text) for text in texts.to_pylist()} == {3, 4, 5}
    assert len(hashing.random_texts(1000, 8, 8).unique()) == 1000
