"""Step 3: the outputs of f that detectors read, each got in one streamed pass and kept."""
