"""Seeing what a model does with each byte of a text: in the terminal and as an HTML page."""
