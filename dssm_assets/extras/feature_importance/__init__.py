"""What each group of features is worth on the validation days: one fit without each of them."""
