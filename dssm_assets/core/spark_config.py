"""The section `spark` of the configuration: how jobs are submitted to an existing Spark cluster.

Belongs here: its keys and their bounds. Does not belong here: submitting (`defs`) and running (`storage/spark_engine.py`).
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from dssm_assets.core.section import Section


class ReadWith(StrEnum):
    """Who reads stored files for queries."""

    SPARK = "spark"
    """Spark's own parquet reader: reads only the columns that are asked for. For s3:// it needs the jar hadoop-aws."""
    WORKERS = "workers"
    """The Python workers, with pyarrow and fsspec (s3fs), as they write: needs no jar."""


class Spark(Section):
    """Where table algebra and feature generation run with `engine: spark`. Secrets: environment only."""

    master: str | None = Field(
        default=None,
        min_length=1,
        description="Master URL (spark://host:7077, yarn, k8s://https://host:6443, local[4]); None: what spark-defaults.conf "
        "of spark-submit says.",
    )
    submit: list[str] = Field(
        default=["spark-submit"], min_length=1, description="Program that submits a job, with arguments that come first."
    )
    options: list[str] = Field(
        default_factory=list, description='Further options of spark-submit, e.g. ["--archives", "env.tar.gz#env"].'
    )
    conf: dict[str, str] = Field(default_factory=dict, description="Spark properties: passed as --conf name=value.")
    partitions: int = Field(
        default=200,
        ge=1,
        le=100_000,
        description="Tasks of a shuffle at most (spark.sql.shuffle.partitions); small ones are joined.",
    )
    python: str | None = Field(
        default=None,
        min_length=1,
        description="Python of the workers, with this package installed (None: the run's own for a local master, else "
        "python3 of each worker).",
    )
    read_with: ReadWith = Field(
        default=ReadWith.SPARK,
        description="spark: its own parquet reader; workers: pyarrow in the workers, needs no jar for s3://.",
    )
