"""Reading the source tables of a user: files, columns, layouts, and what they contain."""
