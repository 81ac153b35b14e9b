"""Programs that are no Python packages, and extras. Where a program is missing, the tests that start it are skipped with one line that says what to install.

With `pytest --require-programs`, as in CI, they fail instead.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable
from typing import Final

import pytest

from dssm_assets.installed_extras import find_extras

OPTION: Final = "--require-programs"
PACKAGES: Final = {
    "chromium": "chromium",
    "java": "openjdk-17-jre-headless",
    "mariadb": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
    "mariadbd": "mariadb-server",
    "postgres": "postgresql",
    "strace": "strace",
    "wget": "wget",
}
"""Program -> its Debian package."""
MISSING: Final = "is not installed"


def needs_extras(*names: str) -> pytest.MarkDecorator:
    """Skips a test of the spine where the folder of an extra that it runs has been deleted."""
    gone = sorted(set(names) - set(find_extras()))
    return pytest.mark.skipif(bool(gone), reason=f"without {', '.join(gone)}")


class Requirement:
    """Whether a missing program is a failure. `configure` reads it from the command line."""

    is_strict = False


def configure(config: pytest.Config) -> None:
    Requirement.is_strict = config.getoption(OPTION)


def find_program(name: str, search: str | None = None) -> str:
    """Returns the path of a program; the test is skipped, or fails, where it is missing.

    Args:
        name: a key of PACKAGES.
        search: the folders to look in, as in PATH; those of PATH if None.
    """
    found = shutil.which(name, path=search)
    if found is None:
        reason = f"{name} {MISSING}. To fix: apt-get install -y {PACKAGES[name]}"
        if Requirement.is_strict:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return found


def missing_lines(skipped: Iterable[pytest.TestReport]) -> list[str]:
    """Returns one line per program for which tests were skipped."""
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped if isinstance(report.longrepr, tuple))
    return [f"{count} tests skipped: {reason}" for reason, count in sorted(reasons.items()) if MISSING in reason]
