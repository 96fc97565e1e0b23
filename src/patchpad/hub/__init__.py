"""Hugging Face: a model as a folder that transformers loads, and back. Needs the extra `hub`."""
