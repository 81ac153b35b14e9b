"""Vector stores that hold the served bundle's vectors: LanceDB, PostgreSQL with pgvector, Qdrant, Milvus."""
