"""Byte-level language models with Scratchpad Patching."""
