"""What few need: a folder for each extra, with all of its layers, found by `registry.py`. A folder that is deleted takes its feature along."""
