"""Contents of a serving bundle: exported towers and their inputs, packed feature definitions, popular items.

Belongs here: computing them. Does not belong here: writing the bundle (`steps/serving.py`) and reading it (`serving/`).
"""
