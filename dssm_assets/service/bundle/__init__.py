"""The bundle: exported towers and their inputs, packed feature definitions, vectors; and the store that publishes bundles.

Belongs here: writing, fetching and verifying a bundle, and its layout. Does not belong here: lists (`service/engine/`).
"""
