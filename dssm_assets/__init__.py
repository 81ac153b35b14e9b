"""dssm-assets: DSSM two-tower vector recall as Dagster software-defined assets.

The package reads like the pipeline: sources -> features_raw -> features (FG) -> samples -> statistics -> feature config ->
training -> vectors -> evaluation. `core` has the rules and maths, `storage` reads and writes bytes, `defs` is all code that
uses Dagster, `definitions` is the table of contents.

For use from outside: `open_table`, `rates`, `load_model` and `recall` read stored results (`stored.py`). In another Dagster
project, `StoredTables` passes them to assets by parameter, and `DssmRecall` is a component for the defs folder
(`component.py`). Each is imported at its first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dssm_assets.component import DssmRecall
    from dssm_assets.extras.stored_tables.io_manager import StoredTables as StoredTables
    from dssm_assets.stored import load_model, open_table, rates, recall

_PUBLIC = {"DssmRecall": "component", "load_model": "stored", "open_table": "stored", "rates": "stored", "recall": "stored"}
_PUBLIC["StoredTables"] = "extras.stored_tables.io_manager"

__all__ = ["DssmRecall", "load_model", "open_table", "rates", "recall"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
