"""The service, from the written bundle to the answer. It begins where training ends.

`bundle/` is written by the step `serving_bundle` and read by the engine; `engine/` makes lists; `http/` answers requests;
`commands/` are publish, recall and serve. Does not belong here: anything that the pipeline needs. Only `stored.py`, the
command line and extras import this package; the asset table names its step by text.
"""
