"""MovieLens 1M and 100K, from one's own copy, as source tables.

Belongs here: reading `ml-1m.zip` or `ml-100k.zip`. Does not belong here: the data themselves:
GroupLens does not allow their redistribution, see https://grouplens.org/datasets/movielens/.

Events: a rating of 4 or 5 is a `like`, a lower one a `view`. Times are seconds since 1970-01-01 UTC.
"""

from __future__ import annotations

import posixpath
import zipfile
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.datasets.complete_journey import SourceTables, sort_rows

LIKE_FROM: Final = 4

OCCUPATIONS: Final = (
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service",
    "doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer", "programmer", "retired",
    "sales/marketing", "scientist", "self-employed", "technician/engineer", "tradesman/craftsman", "unemployed", "writer",
)  # fmt: skip
"""Occupations of MovieLens 1M; the index is the code."""

GENRES: Final = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""Genre flags of MovieLens 100K, in the order of u.item."""

_FILES_1M: Final = ("users.dat", "movies.dat", "ratings.dat")
_FILES_100K: Final = ("u.user", "u.item", "u.data")


def load(path: Path) -> SourceTables:
    """Returns users, items and behavior (user_id, item_id, event, event_time in seconds, rating), behavior sorted by time.

    Args:
        path: `ml-1m.zip` or `ml-100k.zip` as GroupLens publishes them.
    """
    with zipfile.ZipFile(path) as archive:
        members = {posixpath.basename(name): name for name in sorted(archive.namelist(), reverse=True)}
        for files, build in ((_FILES_1M, _from_1m), (_FILES_100K, _from_100k)):
            if all(file in members for file in files):
                # The titles are Latin-1; splitting at "\n" alone keeps characters that Python counts as line ends.
                texts = [archive.read(members[file]).decode("latin-1") for file in files]
                return build(*([line.rstrip("\r") for line in text.split("\n") if line.rstrip("\r")] for text in texts))
    raise ValueError(f"{path} is neither ml-1m.zip nor ml-100k.zip")


def _from_1m(users: list[str], movies: list[str], ratings: list[str]) -> SourceTables:
    user_id, gender, age, occupation, zip_code = _fields(users, "::", 5, "users.dat")
    item_id, title, genres = _fields(movies, "::", 3, "movies.dat")
    code = occupation.cast(pa.int32())
    return SourceTables(
        users=pa.table(
            {
                "user_id": user_id.cast(pa.int64()),
                "gender": gender,
                "age": age.cast(pa.int32()),
                "occupation": code,
                "zip_code": zip_code,
                "occupation_name": pa.array(OCCUPATIONS).take(code),
            }
        ).sort_by("user_id"),
        items=pa.table(
            {"item_id": item_id.cast(pa.int64()), "title": title, "genres": genres, "release_year": _year(title)}
        ).sort_by("item_id"),
        behavior=_behavior(*_fields(ratings, "::", 4, "ratings.dat")),
    )


def _from_100k(users: list[str], items: list[str], ratings: list[str]) -> SourceTables:
    user_id, age, gender, occupation, zip_code = _fields(users, "|", 5, "u.user")
    item_id, title, release_date, _, imdb_url, *flags = _fields(items, "|", 5 + len(GENRES), "u.item")
    genres = dict(zip(GENRES, flags, strict=True))
    named = [pc.if_else(pc.equal(genres[genre], "1"), genre, None) for genre in sorted(genres)]
    date = pc.if_else(pc.equal(release_date, ""), None, release_date)
    return SourceTables(
        users=pa.table(
            {
                "user_id": user_id.cast(pa.int64()),
                "age": age.cast(pa.int32()),
                "gender": gender,
                "occupation": occupation,
                "zip_code": zip_code,
            }
        ).sort_by("user_id"),
        items=pa.table(
            {
                "item_id": item_id.cast(pa.int64()),
                "title": title,
                "release_date": date,
                "release_year": pc.utf8_slice_codeunits(date, -4, None).cast(pa.int32()),
                "genres": pc.binary_join_element_wise(*named, "|", null_handling="skip"),
                "imdb_url": pc.if_else(pc.equal(imdb_url, ""), None, imdb_url),
            }
        ).sort_by("item_id"),
        behavior=_behavior(*_fields(ratings, "\t", 4, "u.data")),
    )


def _behavior(user_id: pa.Array, item_id: pa.Array, rating: pa.Array, event_time: pa.Array) -> pa.Table:
    number = rating.cast(pa.int32())
    table = pa.table(
        {
            "user_id": user_id.cast(pa.int64()),
            "item_id": item_id.cast(pa.int64()),
            "event": pc.if_else(pc.greater_equal(number, LIKE_FROM), "like", "view"),
            "event_time": event_time.cast(pa.int64()),
            "rating": number,
        }
    )
    return sort_rows(table, ["event_time", "user_id", "item_id"])


def _fields(lines: list[str], separator: str, count: int, file: str) -> list[pa.Array]:
    split = pc.split_pattern(pa.array(lines, pa.string()), separator)
    if set(pc.list_value_length(split).to_pylist()) != {count}:
        raise ValueError(f"{file}: not all rows have {count} fields")
    return [pc.list_element(split, index) for index in range(count)]


def _year(title: pa.Array) -> pa.Array:
    """Returns the year that ends a title, "Toy Story (1995)" -> 1995, null if there is none."""
    return pc.struct_field(pc.extract_regex(title, r"\((?P<year>\d{4})\)\s*$"), "year").cast(pa.int32())
