"""Reads tables of PostgreSQL, MySQL, MariaDB and SQLite as sources (`format: sql`); the spine calls `sql_source.py`."""
