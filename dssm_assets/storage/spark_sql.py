"""Spark's SQL for Ibis expressions, where Ibis has none.

Belongs here: translations that Ibis lacks for Spark. Does not belong here: expressions; running them (`spark_engine.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import duckdb
import ibis
import sqlglot.expressions as sge
from ibis.backends.sql.compilers.pyspark import PySparkCompiler

FLOAT_TEXT: Final = "dssm_float_text"
"""Name of the function that `float_text` is registered under."""
_ENTRY: Final = "entry"
_VALUE: Final = "value"


class SparkCompiler(PySparkCompiler):  # type: ignore[misc]  # ibis is skipped by the type check
    """Ibis's compiler for PySpark, with ordered lists, and with floats that become the text that they become elsewhere."""

    __slots__ = ()

    def visit_Cast(self, op: Any, *, arg: Any, to: Any) -> Any:  # noqa: N802 - Ibis looks for this name
        """Returns the SQL of a cast; a float as text is left to FLOAT_TEXT: Spark would write 1.0E7."""
        kind = op.arg.dtype
        if not (to.is_string() and kind.is_floating()):
            return super().visit_Cast(op, arg=arg, to=to)
        return self.f.anon[FLOAT_TEXT](arg, sge.convert(kind.is_float32()))

    def visit_ArrayCollect(  # noqa: N802 - Ibis looks for this name
        self, op: Any, *, arg: Any, where: Any, order_by: Sequence[Any], include_null: bool, distinct: bool
    ) -> Any:
        """Returns the SQL of `collect`: Spark's collect_list knows no order, so entries are collected with their keys,
        sorted as structs and stripped again.

        Raises:
            NotImplementedError: for descending keys and distinct entries, which no expression needs.
        """
        if distinct or any(key.args.get("desc") for key in order_by):
            raise NotImplementedError("on Spark, collect takes ascending keys and keeps every entry")
        keys = [key.this for key in order_by]
        named = [sge.convert(_VALUE), arg]
        for place, key in enumerate(keys):
            named[place * 2 : place * 2] = [sge.convert(f"key_{place}"), key]
        entries = self.f.anon.collect_list(self.f.anon.named_struct(*named))
        wanted = where if include_null else _both(where, arg.is_(sge.Not(this=sge.Null())))
        if wanted is not None:
            entries = sge.Filter(this=entries, expression=sge.Where(this=wanted))
        entry = sge.to_identifier(_ENTRY)
        value = sge.Lambda(this=sge.Dot(this=entry, expression=sge.to_identifier(_VALUE)), expressions=[entry])
        return self.f.anon.transform(self.f.anon.array_sort(entries) if keys else entries, value)


def spark_sql(expression: ibis.Table) -> str:
    """Returns an expression over unbound tables as Spark SQL; a table is looked up by its name."""
    _ = ibis.pyspark  # loads the backend: the compiler reads the options that it registers
    compiler = SparkCompiler()
    return str(compiler.to_sqlglot(expression).sql(dialect=compiler.dialect))


def float_text(value: float | None, is_narrow: bool) -> str | None:
    """Returns a float as DuckDB writes it: the shortest decimal that is read back as the same, 1e+16 from there on.

    Args:
        value: the number; None stays None.
        is_narrow: it is the value of a float32.
    """
    if value is None:
        return None
    if is_narrow:  # Python has no text of a float32, and NumPy's has fewer digits where two neighbours are as near
        ((text,),) = duckdb.execute("SELECT CAST(CAST(? AS FLOAT) AS VARCHAR)", [value]).fetchall()
        return str(text)
    return repr(value)


def _both(where: Any, further: Any) -> Any:
    return further if where is None else sge.And(this=where, expression=further)
