"""Evaluation: bits per byte, calibration of the compute dial, compressors as a yardstick."""
