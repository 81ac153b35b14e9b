"""Tables of PostgreSQL, MySQL, MariaDB and SQLite as sources (`format: sql`); `sql_source.py` is what the spine opens."""
