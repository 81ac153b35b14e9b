"""The bundle: exported towers and their inputs, packed feature definitions, vectors, the store that publishes them.

Belongs here: the step that writes it, its layout, fetching and verifying it. Does not belong here: lists (`service/engine/`).
"""
