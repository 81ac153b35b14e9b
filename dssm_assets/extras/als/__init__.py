"""The baseline `als`, which needs the library `implicit`."""
