"""Tasks: what a model can do, scored so that others can check it."""
