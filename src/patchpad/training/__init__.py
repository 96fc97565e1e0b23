"""Training: one process or several ranks, resumable to the last bit on a CPU."""
