"""Looking at a network: its layers, blocks, head, features, and the way of batches to it."""
