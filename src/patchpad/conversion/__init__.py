"""Conversion: the layers of a trained subword model become the trunk of a patch model."""
