"""Source tables in databases: PostgreSQL, MySQL, MariaDB and SQLite (`format: sql`).

`sql_source.py` is what the spine opens, `address.py` reads URIs and keeps their passwords out of messages, `database.py` is what the modules of
the databases (`postgresql.py`, `mysql.py`, `sqlite.py`) fill in.
"""
