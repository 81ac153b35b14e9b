"""Words about single people, and who is shown in a report."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from dssm_assets.core.evaluation.people import Found, ShownPerson, choose_people, describe_ranks, people_section


def rows(hits, to_find):
    return pa.table({"user_id": range(len(hits)), "truth_count": to_find, "hits_2": hits})


def test_sentences_name_the_lists():
    assert Found("u", 9, {"merged": 5, "ease": 4}).describe() == "5 of 9 found by the merged list; EASE would find 4."
    assert Found("u", 9, {"model": 5}).describe() == "5 of 9 found by the two-tower model."
    assert describe_ranks({"merged": 412, "ease": 37, "popularity": 0}, 1000) == "rank 37 by EASE; 412 by merged list"
    assert describe_ranks({"merged": 0, "ease": 0}, 1000) == "not among the first 1,000 by any list"
    assert describe_ranks({"model": 0}, 200) == "not among the first 200 by two-tower model"


def test_best_worst_and_typical_people_are_chosen():
    # gains 0 +3 -2 +1 0 0; fractions found of users 0, 3, 4 and 5: 1/4, 2/4, 1/4, 4/4, with the median 3/8; 1/8 off are 0, 3 and 4.
    served, baseline = rows([1, 4, 0, 2, 1, 4], [4, 4, 4, 4, 4, 4]), rows([1, 1, 2, 1, 1, 4], [4, 4, 4, 4, 4, 4])
    nobody = np.zeros(6, np.bool_)
    assert choose_people(served, baseline, 2, nobody) == {
        "Typical 1": 0,
        "Typical 2": 3,
        "Typical 3": 4,
        "Best gain": 1,
        "Worst gain": 2,
    }
    assert choose_people(served, baseline, 2, np.arange(6) == 1)["Best gain"] == 3
    assert choose_people(served, baseline, 2, ~nobody) == {}
    assert choose_people(served.slice(0, 1), baseline.slice(0, 1), 2, nobody[:1]) == {"Best gain": 0}


def test_a_section_of_five_people_has_at_most_60_lines_whatever_they_took():
    titles = [(f"title | {number}", "rank 3 by EASE") for number in range(30)]
    people = [
        ShownPerson(f"Typical {one}", Found("a*b", 30, {"model": 1}), [title for title, _ in titles], titles)
        for one in range(5)
    ]
    lines = people_section(people, "2024-01-12").splitlines()
    assert len(lines) <= 60
    assert "**Typical 0, a\\*b**: 1 of 30 found by the two-tower model." in lines
    assert lines.count("- Took 30, the first 6:") == 5
    assert "  - title \\| 5: rank 3 by EASE" in lines and "  - title \\| 6: rank 3 by EASE" not in lines
