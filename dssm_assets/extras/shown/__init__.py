"""The log of answers and shown items, variants of the service, and the rates of taken items."""
