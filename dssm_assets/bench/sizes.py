"""How much the bench works on.

Belongs here: the sizes. Does not belong here: the data made in these sizes (`generated.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from dssm_assets.core.config.evaluation import IndexKind
from dssm_assets.core.errors import Fault, InputError


@dataclass(frozen=True)
class BenchSizes:
    """Sizes of one bench; the defaults take half a minute to a minute on one core.

    Attributes:
        rows: rows of feature generation.
        samples: training samples of one epoch.
        users: users of the training data, whose vectors are inferred too.
        items: items of the training data, whose vectors are inferred too.
        corpus: items that are searched.
        queries: users that search.
        dims: width of the vectors.
        k: length of the lists.
        index: kind of the index.
        threads: of every part.
        seed: of the data and of the training.
    """

    rows: int = 500_000
    samples: int = 200_000
    users: int = 20_000
    items: int = 20_000
    corpus: int = 200_000
    queries: int = 2_048
    dims: int = 64
    k: int = 200
    index: IndexKind = IndexKind.IVF
    threads: int = 1
    seed: int = 17

    def __post_init__(self) -> None:
        """Checks the sizes.

        Raises:
            InputError: naming every one that is too small.
        """
        least = {"samples": 64, "dims": 2, "corpus": 64}
        counts = {name: value for name, value in vars(self).items() if isinstance(value, int) and name != "seed"}
        faults = [
            Fault(f"bench, {name}", f"at least {least.get(name, 1)}", str(value), "ask for more")
            for name, value in counts.items()
            if value < least.get(name, 1)
        ]
        if self.k > self.corpus:
            faults.append(Fault("bench, k", f"at most the corpus, {self.corpus}", str(self.k), "ask for shorter lists"))
        if faults:
            raise InputError(faults)
