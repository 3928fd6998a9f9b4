"""Benchmarks of gradbench's own parts: what they cost beside an ordinary training step."""
