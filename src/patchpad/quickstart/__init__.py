"""The quickstart: trains, evaluates and samples a small model, and writes its report."""
