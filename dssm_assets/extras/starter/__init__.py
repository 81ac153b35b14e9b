"""Writes a configuration for a team's own tables (the command init), and checks one (the command validate).

`table_survey.py` reads tables, `column_roles.py` guesses roles, `log_table.py` counts the log, `starter_settings.py` chooses
settings, `starter_config.py` writes. `config_checks.py` compares a configuration with its data by the rules of `core`.
"""
