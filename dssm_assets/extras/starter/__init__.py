"""Makes a configuration from a team's own tables, and validates one: the commands init and validate.

`table_survey.py` reads tables, `column_roles.py` guesses roles, `log_table.py` counts the log, `starter_settings.py` chooses
settings, `starter_config.py` writes. `config_checks.py` compares a configuration with its data by the rules of `core`.
"""
