"""Recall from the serving bundle, as a library and over HTTP.

Belongs here: reading bundles, answering requests. Does not belong here: writing bundles (`steps/serving.py`), the
command line (`commands/recall.py`, `commands/serve.py`).
"""
