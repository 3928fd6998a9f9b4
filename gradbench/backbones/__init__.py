"""Step 1, the network f: architectures, training, checkpoints."""
