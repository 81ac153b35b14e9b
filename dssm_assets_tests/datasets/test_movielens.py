"""MovieLens is read from archives of the original form. All rows here are made up."""

from __future__ import annotations

import zipfile
from pathlib import Path

from dssm_assets_tests.datasets.movielens import load

ONE_M = {
    "ml-1m/README": "made up",
    "ml-1m/users.dat": "2::M::56::16::70072\n1::F::1::10::48067-12\n",
    "ml-1m/movies.dat": "7::Amélie\x85 d'or (2001)::Comedy|Romance\r\n3::No Year::Drama\r\n",
    "ml-1m/ratings.dat": "1::7::4::978300760\n2::3::3::978300700\n1::3::5::978300760\n",
}
ONE_HUNDRED_K = {
    "ml-100k/u.user": "1|24|M|technician|85711\n2|53|F|other|T8H1N\n",
    "ml-100k/u.item": (
        "1|Tale (1995)|01-Jan-1995||http://example.com/1|0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
        "2|unknown||||1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
    ),
    "ml-100k/u.data": "2\t1\t5\t881250949\n1\t2\t1\t881250948\n",
}


def archive(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as target:
        for name, text in members.items():
            target.writestr(name, text.encode("latin-1"))
    return path


def test_load_reads_movielens_1m(tmp_path: Path) -> None:
    tables = load(archive(tmp_path / "ml-1m.zip", ONE_M))
    assert tables.users.to_pydict() == {
        "user_id": [1, 2],
        "gender": ["F", "M"],
        "age": [1, 56],
        "occupation": [10, 16],
        "zip_code": ["48067-12", "70072"],
        "occupation_name": ["K-12 student", "self-employed"],
    }
    assert tables.items.to_pydict() == {
        "item_id": [3, 7],
        "title": ["No Year", "Amélie\x85 d'or (2001)"],
        "genres": ["Drama", "Comedy|Romance"],
        "release_year": [None, 2001],
    }
    assert tables.behavior.to_pydict() == {
        "user_id": [2, 1, 1],
        "item_id": [3, 3, 7],
        "event": ["view", "like", "like"],
        "event_time": [978300700, 978300760, 978300760],
        "rating": [3, 5, 4],
    }


def test_load_reads_movielens_100k(tmp_path: Path) -> None:
    tables = load(archive(tmp_path / "ml-100k.zip", ONE_HUNDRED_K))
    assert tables.users.column("zip_code").to_pylist() == ["85711", "T8H1N"]
    assert tables.items.to_pydict() == {
        "item_id": [1, 2],
        "title": ["Tale (1995)", "unknown"],
        "release_date": ["01-Jan-1995", None],
        "release_year": [1995, None],
        "genres": ["Animation|Children's|Comedy", "unknown"],
        "imdb_url": ["http://example.com/1", None],
    }
    assert tables.behavior.column("event").to_pylist() == ["view", "like"]
    assert tables.behavior.column("user_id").to_pylist() == [1, 2]
