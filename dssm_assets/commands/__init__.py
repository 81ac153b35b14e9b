"""The commands of the command line: each module parses its arguments and calls the library once."""
