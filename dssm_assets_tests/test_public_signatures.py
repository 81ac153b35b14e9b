"""The public signatures, frozen: who changes one here changes it for users, and says so in CHANGELOG.md."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import dssm_assets
from dssm_assets.definitions import build_definitions

_WHERE = "config=None, home=None, scene=None"


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (dssm_assets.open_table, f"name, day='latest', *, {_WHERE}"),
        (dssm_assets.load_model, f"day='latest', *, {_WHERE}"),
        (dssm_assets.rates, f"day='latest', *, scope='all', population='warm', {_WHERE}"),
        (
            dssm_assets.recall,
            "user_id=None, *, features=None, history=None, events=None, item_id=None, k=200, exclude=(), filters=None, "
            f"exclude_history=False, channels=None, fields=(), explain=False, {_WHERE}",
        ),
        (dssm_assets.DssmRecall, "config='config.yaml', key_prefix=None, home=None, source_assets={}"),
        (build_definitions, "config=None, launch=None"),
    ],
)
def test_public_signatures_are_frozen(function: Callable[..., Any], expected: str) -> None:
    if function is dssm_assets.DssmRecall:  # whose parameters are the attributes of its YAML
        found = ", ".join(
            f"{name}={field.get_default(call_default_factory=True)!r}"
            for name, field in dssm_assets.DssmRecall.model_fields.items()
        )
    else:
        signature = inspect.signature(function)
        bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
        found = str(inspect.Signature(bare))[1:-1]
    assert found == expected
