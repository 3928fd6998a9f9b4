"""A finished run's network and detectors on new images."""
