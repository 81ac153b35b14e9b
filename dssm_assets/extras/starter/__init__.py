"""A configuration from a team's own tables, and its validation: the commands init and validate.

`table_survey.py` reads tables, `column_roles.py` guesses roles, `log_table.py` counts the log, `starter_settings.py` chooses,
`starter_config.py` writes; `config_checks.py` compares a configuration with its data. The rules that it checks are defined in `core`.
"""
