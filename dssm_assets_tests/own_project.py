"""A project next to this one: a folder with a package (a loss, a sampler, a pooling, a baseline, a check) and an installed feature operator."""

from __future__ import annotations

import shutil
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from dssm_assets.core.features.operators.registry import OPERATORS
from dssm_assets.core.models.losses import LOSSES
from dssm_assets.core.models.poolings import POOLINGS
from dssm_assets.core.models.samplers import SAMPLERS
from dssm_assets.core.names import BASELINES
from dssm_assets.steps.checks import CHECKS
from dssm_assets.storage import plugins
from dssm_assets_tests import worlds

SOURCE: Final = Path(__file__).parent / "fixtures" / "own_project"
LENGTH: Final = {"feature_name": "category_length", "feature_type": "length_feature", "expression": "item:category"}
CHANGES: Final[dict[str, Any]] = {
    "plugins": ["own_recall.ranking", "own_recall.checks"],
    "features": {"fg": {"features": [*worlds.FG["features"], LENGTH]}},
    "model": {"loss": "bpr", "sampler": "rare_first", "poolings": [{"kind": "halving", "length": 20}]},
    "evaluation": {"extra_baselines": ["least_popular"]},
}
"""What its configuration has that the tiny world's has not."""
_REGISTRIES: Final[tuple[dict[str, Any], ...]] = (LOSSES, SAMPLERS, POOLINGS, BASELINES, OPERATORS, CHECKS)


def copy_project(folder: Path) -> Path:
    """Copies the project; returns the folder of installed packages, which has its operator. Its package is in the folder alone."""
    shutil.copytree(SOURCE, folder, dirs_exist_ok=True)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    metadata = folder / "site" / f"own_features-{project['version']}.dist-info"
    metadata.mkdir(parents=True)
    (folder / "own_features.py").rename(folder / "site" / "own_features.py")
    named = f"Name: {project['name']}\nVersion: {project['version']}\n"
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\n{named}")
    for group, points in project["entry-points"].items():
        lines = "".join(f"{name} = {value}\n" for name, value in points.items())
        (metadata / "entry_points.txt").write_text(f"[{group}]\n{lines}")
    return metadata.parent


@contextmanager
def forgetting() -> Iterator[None]:
    """Forgets at the end of the block what plug-ins registered in it, their modules, and where they were found."""
    before, modules, searched = [dict(registry) for registry in _REGISTRIES], set(sys.modules), [*sys.path]
    plugins.import_entry_points.cache_clear()
    yield
    plugins.import_entry_points.cache_clear()
    sys.path[:] = searched
    for registry, entries in zip(_REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(entries)
    for name in set(sys.modules) - modules:
        if name.startswith(("own_", "broken_")):
            del sys.modules[name]
