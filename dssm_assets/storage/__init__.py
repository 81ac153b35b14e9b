"""Storage: atomic publishing and reading of partitions, artifacts and bundles, on a local disk or an object store.

Belongs here: bytes, file layouts, table engines, readers of source tables. Does not belong here: what the rows mean
(`core/`), the order of work (`steps/`), dagster.
"""
