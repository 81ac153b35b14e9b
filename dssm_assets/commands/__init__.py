"""The commands of the command line: arguments and one call into the library. A module has one command, or two that undo each other."""
