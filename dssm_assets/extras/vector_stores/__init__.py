"""Publishes the served bundle's vectors to a vector store: LanceDB, PostgreSQL with pgvector, Qdrant or Milvus."""
