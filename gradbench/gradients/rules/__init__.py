"""Statistics of a parameter's per-image gradient from x and delta, by family of layers."""
