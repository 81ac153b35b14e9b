"""The worth of each group of features on the validation days: one fit without each."""
