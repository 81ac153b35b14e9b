"""Texts hashed per second on one core: `python -m dssm_assets_tests.benchmarks.hashing`.

Distinct texts of one length or a range of lengths, then ten million rows of a thousand distinct texts: plain, encoded as a
dictionary first, and already encoded. CPU time, the best of several runs, so that other work on the machine matters
little. Random data with a fixed seed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from dssm_assets.core.arrays.hashing import hash_values
from dssm_assets.core.config.features import HashFunction

LENGTHS = ((8, 8), (16, 16), (40, 40), (200, 200), (8, 20), (1, 64))
"""Fewest and most bytes of a text. Ids mostly have 8 to 20."""

_DATA_BYTES = 16_000_000
_DISTINCT = 1000
_REPEATS = 5


def random_texts(count: int, fewest: int, most: int, seed: int = 0) -> pa.Array:
    """Returns random texts of lower-case letters, their lengths evenly spread from fewest to most bytes."""
    random = np.random.default_rng(seed)
    offsets = np.zeros(count + 1, np.int32)
    np.cumsum(random.integers(fewest, most, count, endpoint=True), out=offsets[1:])
    letters = random.integers(ord("a"), ord("z"), int(offsets[-1]), dtype=np.uint8, endpoint=True)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(letters))


def cpu_seconds(work: Callable[..., Any], *inputs: object) -> float:
    """Returns the CPU seconds of the quickest of several runs on the inputs."""
    seconds = []
    for _ in range(_REPEATS):
        start = time.process_time()
        work(*inputs)
        seconds.append(time.process_time() - start)
    return min(seconds)


def distinct_table(string_count: int) -> list[str]:
    """Returns the table of distinct texts, a line per range of lengths.

    Args:
        string_count: texts per line, fewer where they are long.
    """
    lines = [f"{'bytes':>8}  {'murmur texts/s':>15}  {'farm texts/s':>15}  {'murmur bytes/s':>15}  {'farm bytes/s':>15}"]
    for fewest, most in LENGTHS:
        count = min(string_count, _DATA_BYTES // most)
        texts = random_texts(count, fewest, most)
        byte_count = int(texts.buffers()[2].size)
        seconds = [cpu_seconds(hash_values, texts, function) for function in HashFunction]
        speeds = [amount / each for amount in (count, byte_count) for each in seconds]
        name = str(fewest) if fewest == most else f"{fewest}-{most}"
        lines.append(f"{name:>8}  " + "  ".join(f"{speed:>15,.0f}" for speed in speeds))
    return lines


def repeated_table(row_count: int) -> list[str]:
    """Returns the table of a column with few distinct texts, a line per form it is given in."""
    entries = random_texts(_DISTINCT, 8, 20)
    codes = np.random.default_rng(1).integers(0, _DISTINCT, row_count, dtype=np.int32)
    encoded = pa.DictionaryArray.from_arrays(pa.array(codes), entries)
    plain = encoded.dictionary_decode()
    lines = [f"{'form':>22}  {'murmur rows/s':>15}  {'farm rows/s':>15}"]
    forms: dict[str, tuple[pa.Array, Callable[..., Any]]] = {
        "plain": (plain, hash_values),
        "encoded, then hashed": (plain, _encode_and_hash),
        "a dictionary already": (encoded, hash_values),
    }
    for name, (column, work) in forms.items():
        speeds = [row_count / cpu_seconds(work, column, function) for function in HashFunction]
        lines.append(f"{name:>22}  " + "  ".join(f"{speed:>15,.0f}" for speed in speeds))
    return lines


def _encode_and_hash(column: pa.Array, function: HashFunction) -> Any:
    return hash_values(column.dictionary_encode(), function)


def main(arguments: list[str] | None = None) -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strings", type=int, default=1_000_000, help="distinct texts per length")
    parser.add_argument("--rows", type=int, default=10_000_000, help=f"rows of {_DISTINCT} distinct texts")
    given = parser.parse_args(arguments)
    print(f"Distinct texts, up to {given.strings:,} of each length; CPU time of one core\n")
    print("\n".join(distinct_table(given.strings)))
    print(f"\n{given.rows:,} rows of {_DISTINCT} distinct texts of 8 to 20 bytes\n")
    print("\n".join(repeated_table(given.rows)))


if __name__ == "__main__":
    main()
