"""Step 2: what f is challenged with: other datasets, corruptions, attacks."""
