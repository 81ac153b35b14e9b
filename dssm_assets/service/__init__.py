"""The service, from the written bundle to the answer. It begins where training ends.

`bundle/` writes bundles (step `serving_bundle`) and fetches them. `engine/` makes lists, `http/` answers requests, `commands/`
has publish, recall and serve. Does not belong here: code that the pipeline needs. Only `stored.py`, the command line and
extras import this package. The asset table names its step by text.
"""
