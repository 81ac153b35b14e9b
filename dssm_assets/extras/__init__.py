"""What few need: each extra is a folder with all of its layers; `installed_extras.py` finds it. Deleting the folder removes the extra."""
