"""Links from an asset to the step that makes it: a line of a local file, or of the repository that the configuration names.

Belongs here: building the links. Does not belong here: finding a step's line (`lazy_steps.py`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg

from dssm_assets.core.platform_config import Platform
from dssm_assets.defs.lazy_steps import LazyStep

_REPOSITORY = Path(__file__).parent.parent.parent


def code_references(step: Callable[..., Any], platform: Platform) -> dict[str, Any]:
    """Returns the metadata entry that the UI shows as "code", nothing for a step that stands in no file of the package."""
    if not isinstance(step, LazyStep) or step.line is None:
        return {}
    label = f"steps/{step.module}.py, {step.name}"
    reference: Any = dg.LocalFileCodeReference(file_path=str(step.file), line_number=step.line, label=label)
    if platform.git_url is not None:
        reference = dg.UrlCodeReference(url=_url(step, platform), label=label)
    return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[reference])}


def _url(step: LazyStep, platform: Platform) -> str:
    path = step.file.relative_to(_REPOSITORY).as_posix()
    tree = "-/blob" if "gitlab" in str(platform.git_url) else "blob"
    return f"{str(platform.git_url).rstrip('/')}/{tree}/{platform.git_branch}/{path}#L{step.line}"
