"""Inference: typed caches, prefill and step, sampling, generation."""
