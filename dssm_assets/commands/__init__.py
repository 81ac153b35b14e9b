"""The commands of the command line, one module each: arguments and one call into the library."""
