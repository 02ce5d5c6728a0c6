"""A network's layers, blocks, head and features, and how batches reach it."""
