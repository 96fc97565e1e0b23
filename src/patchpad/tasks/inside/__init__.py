"""What runs inside a sandbox: the standard library only, since nothing of the caller's environment is there."""
