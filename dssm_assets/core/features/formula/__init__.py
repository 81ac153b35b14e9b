"""Formulas of `expr_feature` and of normalizers: parser, functions, evaluation over columns."""
