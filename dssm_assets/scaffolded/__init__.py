"""What `dg scaffold defs` writes in this project: loaded with the asset graph by `definitions.py`, if there is anything.

Belongs here: instances of components and assets of a copy of this project that is made your own. Does not belong here: assets of the
recall graph (`defs/asset_table.py`).
"""
