"""Training: one process, resumable to the last bit on a CPU."""
