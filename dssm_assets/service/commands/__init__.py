"""The commands of the service: publish, recall, serve."""
