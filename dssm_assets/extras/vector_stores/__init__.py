"""Vector stores that follow the served bundle: LanceDB, PostgreSQL with pgvector, Qdrant, Milvus."""
