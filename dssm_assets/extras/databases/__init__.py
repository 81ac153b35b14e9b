"""Reads tables of PostgreSQL, MySQL, MariaDB and SQLite as sources (`format: sql`). The spine calls `sql_source.py`."""
