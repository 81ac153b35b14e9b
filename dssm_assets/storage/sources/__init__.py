"""Reading a user's own tables: files, columns, layouts, what they hold."""
