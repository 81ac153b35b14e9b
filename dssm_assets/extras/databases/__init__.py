"""Tables of PostgreSQL, MySQL, MariaDB and SQLite as sources (`format: sql`); the spine opens `sql_source.py`."""
