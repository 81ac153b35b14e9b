"""Prints the constraints of the image: every distribution that `dssm-assets[deploy,text]` needs, at its installed version.

    python3.11 -m venv .venv/lock && .venv/lock/bin/pip install -e '.[deploy,text]'
    .venv/lock/bin/python deploy/write_constraints.py > deploy/constraints.txt

Run it in an environment in which the tests have passed. Dagster's packages pin each other, so they move together.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = "dssm-assets[deploy,text]"


def pins(root: str = ROOT) -> dict[str, str]:
    """Returns name -> public version of everything that a requirement needs, without itself.

    Raises:
        PackageNotFoundError: a needed distribution is not installed.
    """
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(root)]
    while waiting:
        requirement = waiting.pop()
        for extra in ("", *sorted(requirement.extras)):
            name = canonicalize_name(requirement.name)
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            installed = distribution(name)
            found[name] = Version(installed.version).public  # 2.13.0+cpu is pinned as 2.13.0: the index chooses the build
            waiting += _needed(installed, extra)
    del found[canonicalize_name(Requirement(root).name)]
    return dict(sorted(found.items()))


def _needed(installed: Distribution, extra: str) -> Iterator[Requirement]:
    for text in installed.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


if __name__ == "__main__":
    version = ".".join(map(str, sys.version_info[:2]))
    print(f"# Versions in the image, on Python {version}. Written by deploy/write_constraints.py.")
    print("\n".join(f"{name}=={pinned}" for name, pinned in pins().items()))
