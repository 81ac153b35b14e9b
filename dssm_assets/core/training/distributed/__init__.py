"""Training by several processes: ranks, tables in shards, batches that all ranks share."""
