"""Optional features. Each extra is a folder with all of its layers, found by `installed_extras.py`. Deleting the folder removes it."""
