"""Where bundles lie, and which of them is served.

    <root>/current.json                 names the bundle that is served
    <root>/bundles/<bundle_id>/...      its files, never changed once written

Belongs here: the pointer, folders, and going on with the next bundle when one is cleared away under a reader. Does not
belong here: what is in a bundle (`bundle.py`), publishing (`storage/bundles.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import fsspec

from dssm_assets.core.errors import Fault, PartitionMissingError, StorageError
from dssm_assets.storage.bundles import BUNDLES, CURRENT, MANIFEST, content_digest

Made = TypeVar("Made")

_TRIES = 10


class BundleRoot:
    """The folder or URL under which bundles lie, or a single bundle's own folder."""

    def __init__(self, root: str, options: Mapping[str, Any] | None = None) -> None:
        self.fs, path = fsspec.core.url_to_fs(root, **dict(options or {}))
        self.path = str(path).rstrip("/")
        self.is_local = "file" in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,))

    def current(self) -> str:
        """Returns the id of the bundle that is served now.

        Raises:
            PartitionMissingError: if none was ever published.
            StorageError: if the pointer cannot be read.
        """
        try:
            pointer = json.loads(self.fs.cat_file(f"{self.path}/{CURRENT}"))
            return str(pointer["bundle_id"])
        except FileNotFoundError as error:
            if self.fs.exists(f"{self.path}/{MANIFEST}"):
                return id_of(json.loads(self.fs.cat_file(f"{self.path}/{MANIFEST}")))
            fault = Fault(
                f"serving root {self.path}", f"a file {CURRENT}", "none", "materialize serving_bundle, or correct the path"
            )
            raise PartitionMissingError(fault) from error
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{self.path}/{CURRENT}: not a pointer to a bundle ({error}); publish again") from error

    def of_current(self, make: Callable[[str], Made], bundle_id: str | None = None) -> Made:
        """Returns what is made of the current bundle, or of a named one.

        A bundle that is cleared away while it is read, because newer ones were published, gives way to the current one.

        Raises:
            StorageError: if a file is missing, or what `make` raises.
        """
        wanted = bundle_id or self.current()
        for _ in range(_TRIES):
            try:
                return make(wanted)
            except (FileNotFoundError, StorageError) as error:
                now = bundle_id or self.current()
                if now == wanted or self.fs.exists(f"{self.folder(wanted)}/{MANIFEST}"):
                    if isinstance(error, StorageError):
                        raise
                    raise StorageError(f"bundle {wanted}: a file is missing ({error}); publish it again") from error
                wanted = now
        raise StorageError(f"serving root {self.path}: bundles change faster than they can be opened")

    def folder(self, bundle_id: str) -> str:
        """Returns where a bundle's files lie, inside the filesystem."""
        return self.path if self.fs.exists(f"{self.path}/{MANIFEST}") else f"{self.path}/{BUNDLES}/{bundle_id}"


def id_of(manifest: Mapping[str, Any]) -> str:
    """Returns the id that a manifest gives its bundle, whatever its folder is called."""
    return f"{manifest['ds']}-{content_digest(manifest)[:12]}"
