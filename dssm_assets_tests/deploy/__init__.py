"""The files of deploy/, read as their tools read them and run as real processes."""
