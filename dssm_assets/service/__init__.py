"""From the written bundle to the answer: the house that begins where training ends.

`bundle/` is written by the step `serving_bundle` and read by the engine; `engine/` makes lists; `http/` answers requests;
`commands/` are publish, recall and serve. Does not belong here: whatever the pipeline needs. Nothing but `stored.py`, the
command line and extras imports this package; the asset table names its step by text.
"""
