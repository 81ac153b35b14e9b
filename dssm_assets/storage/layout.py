"""Paths of everything that is stored: the only place that builds one.

    <root>/<asset>/ds=YYYY-MM-DD/_manifest.json        names the files of the partition
    <root>/<asset>/ds=YYYY-MM-DD/<stem>-<digest>.<ext>  the files, named by their content
    <root>/<asset>/_shared/<stem>-<digest>.<ext>        files that several days name (a snapshot that did not change)
    <root>/experiments/<name>/<asset>/...               the same again, for what an experiment made of its own
    <root>/_staging/<any>/...                           written aside; gone when whoever wrote it is done

Belongs here: names of folders and files. Does not belong here: reading or writing them.
"""

from __future__ import annotations

import re

MANIFEST = "_manifest.json"
SHARED = "_shared"
EXPERIMENTS = "experiments"
STAGING = "_staging"
_EXPERIMENT = re.compile(r"^[a-z][a-z0-9_]*$")
_DS_FOLDER = re.compile(r"^ds=(\d{4}-\d{2}-\d{2})$")


def asset_folder(root: str, asset: str) -> str:
    """Returns the folder that holds every partition of an asset."""
    return f"{root.rstrip('/')}/{asset}"


def staging_folder(root: str) -> str:
    """Returns the folder in which files are written aside."""
    return f"{root.rstrip('/')}/{STAGING}"


def experiments_folder(root: str) -> str:
    """Returns the folder that holds the roots of all experiments; the table of that name has its days there too."""
    return f"{root.rstrip('/')}/{EXPERIMENTS}"


def experiment_root(root: str, name: str) -> str:
    """Returns the root below which the partitions of an experiment lie."""
    return f"{experiments_folder(root)}/{name}"


def experiment_of_folder(folder: str) -> str | None:
    """Returns the experiment whose root a folder is, None for any other folder."""
    name = folder.rstrip("/").rpartition("/")[2]
    return name if _EXPERIMENT.match(name) else None


def partition_folder(root: str, asset: str, ds: str) -> str:
    """Returns the folder of one partition."""
    return f"{asset_folder(root, asset)}/ds={ds}"


def manifest_path(root: str, asset: str, ds: str) -> str:
    """Returns the path of the file that makes a partition visible."""
    return f"{partition_folder(root, asset, ds)}/{MANIFEST}"


def is_shared(path: str) -> bool:
    """Tells whether a file's path inside a manifest points to the shared folder."""
    return path.startswith(f"{SHARED}/")


def file_path(root: str, asset: str, ds: str, path: str) -> str:
    """Returns where a file that a manifest names lies."""
    return f"{asset_folder(root, asset) if is_shared(path) else partition_folder(root, asset, ds)}/{path}"


def part_name(number: int) -> str:
    """Returns the logical name of a part of a table."""
    return f"part-{number:05d}.parquet"


def content_name(name: str, sha256: str) -> str:
    """Returns a file name that carries the content: `part-00000.parquet` -> `part-00000-0123456789ab.parquet`."""
    stem, dot, extension = name.rpartition(".")
    return f"{stem}-{sha256[:12]}{dot}{extension}" if dot else f"{name}-{sha256[:12]}"


def ds_of_folder(folder: str) -> str | None:
    """Returns the day of a partition folder's name, None for any other folder."""
    match = _DS_FOLDER.match(folder.rstrip("/").rpartition("/")[2])
    return match.group(1) if match else None
