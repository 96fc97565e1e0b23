"""The error for a missing library of the extra `serve`."""

from patchpad.errors import MissingExtraError


def missing_extra(error: ImportError) -> MissingExtraError:
    """Returns the error that names the library and the line that installs it."""
    library = (error.name or "").partition(".")[0] or "of the server"
    return MissingExtraError(
        f"the library `{library}` is not installed", hint='Install it with: pip install "patchpad[serve]"'
    )
