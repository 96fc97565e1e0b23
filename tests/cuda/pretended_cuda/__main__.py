"""Runs a script, or with `-m` a module, on the pretended device: `python -m pretended_cuda [-m] NAME [ARGUMENTS]`."""

import runpy
import sys
from pathlib import Path


def main() -> None:
    """Runs what the command line names as Python would."""
    is_module = sys.argv[1:2] == ["-m"]
    names = sys.argv[2:] if is_module else sys.argv[1:]
    if not names:
        sys.exit(__doc__)
    sys.argv = names
    if is_module:
        runpy.run_module(names[0], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(names[0]).resolve().parent))
        runpy.run_path(names[0], run_name="__main__")


if __name__ == "__main__":
    main()
