"""Home of the files written by `dg scaffold defs` in this project; `definitions.py` loads them with the asset graph.

Belongs here: components and assets of your own copy of this project. Does not belong here: assets of the recall graph
(`defs/asset_table.py`).
"""
