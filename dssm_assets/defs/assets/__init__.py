"""One module per asset group, with the rows of its assets.

Belongs here: what an asset holds, depends on and checks, in words that the UI shows. Does not belong here: computing it
(`steps/`).
"""
