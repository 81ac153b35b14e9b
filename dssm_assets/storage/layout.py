"""Builds the paths of everything that is stored. No other module builds paths.

    <root>/<asset>/ds=YYYY-MM-DD/_manifest.json         lists the files of the partition
    <root>/<asset>/ds=YYYY-MM-DD/<stem>-<digest>.<ext>  the files, named by their content (see `content_name`)
    <root>/<asset>/_shared/<stem>-<digest>.<ext>        files that the manifests of several days list (an unchanged snapshot)
    <root>/experiments/<name>/<asset>/...               the same layout, for the partitions of an experiment
    <root>/_iceberg/...                                 metadata of the tables in the home's Iceberg catalog
    <root>/_staging/<any>/...                           files not yet published; removed when their writer is done
    <root>/_cleaned                                     empty; its modification time is the time of the last cleanup
    <root>/serving/bundles/<bundle_id>/...              the files of a serving bundle, with manifest.json and its signature
    <root>/serving/current.json                         names the served bundle
    <root>/serving/forgotten.json                       hashes of the users to be forgotten
    <root>/serving/stores_with_users.json               configured vector stores with vectors of users
    <root>/lancedb/...                                  vectors, unless another vector store is configured

Belongs here: names of folders and files. Does not belong here: reading or writing; names of files inside an artifact or a
bundle (`core/file_names.py`).
"""

from __future__ import annotations

import re

MANIFEST = "_manifest.json"
SHARED = "_shared"
EXPERIMENTS = "experiments"
ICEBERG = "_iceberg"
ICEBERG_CATALOG = "iceberg.db"
"""Name of a file in the home."""
STAGING = "_staging"
CLEANED = "_cleaned"
SERVING = "serving"
LANCEDB = "lancedb"
BUNDLES = "bundles"
BUNDLE_MANIFEST = "manifest.json"
BUNDLE_SIGNATURE = "manifest.json.sig"
CURRENT = "current.json"
FORGOTTEN = "forgotten.json"
STORES_WITH_USERS = "stores_with_users.json"
"""Replaced versions of the vector store."""
NO_ASSETS = frozenset({STAGING, SERVING, EXPERIMENTS, ICEBERG, LANCEDB})
"""Folders of a store that hold no partitions of a regular asset."""
_EXPERIMENT = re.compile(r"^[a-z][a-z0-9_]*$")
_DS_FOLDER = re.compile(r"^ds=(\d{4}-\d{2}-\d{2})$")


def inside(root: str, *names: str) -> str:
    """Returns the path of a file or folder inside a root."""
    return "/".join([root.rstrip("/"), *names])


def asset_folder(root: str, asset: str) -> str:
    return inside(root, asset)


def staging_folder(root: str) -> str:
    return inside(root, STAGING)


def experiments_folder(root: str) -> str:
    """Returns the folder with the roots of all experiments, and with the table `experiments`."""
    return inside(root, EXPERIMENTS)


def experiment_root(root: str, name: str) -> str:
    return f"{experiments_folder(root)}/{name}"


def experiment_of_folder(folder: str) -> str | None:
    """Returns the experiment that a root folder belongs to. None for any other folder."""
    name = folder.rstrip("/").rpartition("/")[2]
    return name if _EXPERIMENT.match(name) else None


def partition_folder(root: str, asset: str, ds: str) -> str:
    return f"{asset_folder(root, asset)}/ds={ds}"


def manifest_path(root: str, asset: str, ds: str) -> str:
    return f"{partition_folder(root, asset, ds)}/{MANIFEST}"


def is_shared(path: str) -> bool:
    return path.startswith(f"{SHARED}/")


def file_path(root: str, asset: str, ds: str, path: str) -> str:
    return f"{asset_folder(root, asset) if is_shared(path) else partition_folder(root, asset, ds)}/{path}"


def part_name(number: int) -> str:
    return f"part-{number:05d}.parquet"


def content_name(name: str, sha256: str, mark: str = "") -> str:
    """Returns a file name with the content's digest: `part-00000.parquet` -> `part-00000-0123456789ab.parquet`.

    A mark, different in every write, makes the name unique: `part-00000-0123456789ab-5f0c.parquet`.
    """
    stem, dot, extension = name.rpartition(".")
    content = f"{sha256[:12]}-{mark}" if mark else sha256[:12]
    return f"{stem}-{content}{dot}{extension}" if dot else f"{name}-{content}"


def ds_of_folder(folder: str) -> str | None:
    """Returns the day in the name of a partition's folder. None for any other folder."""
    match = _DS_FOLDER.match(folder.rstrip("/").rpartition("/")[2])
    return match.group(1) if match else None


def serving_root(root: str) -> str:
    return inside(root, SERVING)


def bundles_folder(serving: str) -> str:
    return f"{serving}/{BUNDLES}"
