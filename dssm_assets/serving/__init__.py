"""Reading the serving bundle: recall from the command line and over HTTP."""
