"""The prerequisite feature workflow: statistics, preferences and sequences of users and items as of the end of each day."""
