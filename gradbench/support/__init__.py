"""Tools that know nothing of images or networks: progress, locks, memory, values on demand."""
