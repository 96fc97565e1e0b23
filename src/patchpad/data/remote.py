"""Files behind URLs, such as s3://bucket/texts/*.jsonl. The only place that imports fsspec, when a URL is read."""

import io
from pathlib import Path, PurePosixPath
from typing import Any

from patchpad.data.folders import DATASET, SPLITS
from patchpad.errors import DataError, MissingExtraError, quoted


def is_url(path: str | Path) -> bool:
    """Whether a path is a URL, and no file of this machine's own."""
    return "://" in str(path)


def find_urls(url: str) -> list[str]:
    """Returns the URLs of the files that a URL names, sorted: of one, of a folder with all below it, or of a glob.

    Raises:
        DataError: nothing is there, or it cannot be reached.
        MissingExtraError: the library for such URLs is not installed.
    """
    system, path = _file_system(url)
    try:
        if system.isfile(path):
            found = [path]
        elif system.isdir(path):
            found = [name for name in system.find(path) if not _is_hidden(name, path)]
        else:
            found = [name for name in system.glob(path) if system.isfile(name)]
    except Exception as error:  # each file system has errors of its own
        raise _unreachable(url, error) from error
    if not found:
        raise DataError(f"no file is at {url}", hint="Check the URL; globs like 's3://bucket/*.txt' need quotes.")
    for name in found:
        if PurePosixPath(name).name in (DATASET, SPLITS):
            raise DataError(
                f"{url} is a folder of a saved dataset; allowed there: files",
                hint=f"Copy it to a disk first, or name its files: {quoted(url.rstrip('/') + '/*.arrow')}",
            )
    return sorted(system.unstrip_protocol(name) for name in found)


def open_url(url: str) -> io.BufferedReader:
    """Opens a file behind a URL.

    Raises:
        DataError: it cannot be read.
        MissingExtraError: the library for such URLs is not installed.
    """
    system, path = _file_system(url)
    try:
        return io.BufferedReader(system.open(path, "rb"))
    except Exception as error:
        raise _unreachable(url, error) from error


def state_of_url(url: str) -> tuple[int, int, int] | None:
    """Returns the size of a file behind a URL and a number for all else that is said of it; None where it is gone."""
    system, path = _file_system(url)
    try:
        return int(system.size(path) or 0), int(system.checksum(path)), 0
    except Exception:
        return None


def _file_system(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingExtraError(
            f"reading {url} needs fsspec, which is not installed", hint="Install it: pip install 'patchpad[data]'"
        ) from error
    try:
        return url_to_fs(url)
    except ImportError as error:  # its message names the library: "Install s3fs to access S3"
        raise MissingExtraError(
            f"reading {url} needs a further library: {error}", hint="Install it with pip, then repeat the command."
        ) from error
    except ValueError as error:
        raise DataError(
            f"cannot read {url}: {error}", hint="Check how the URL begins, as in s3:// or gs://."
        ) from error
    except Exception as error:
        raise _unreachable(url, error) from error


def _unreachable(url: str, error: Exception) -> DataError:
    return DataError(f"cannot read {url}: {error}", hint="Check the URL, the network and your access.")


def _is_hidden(name: str, folder: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).relative_to(folder).parts)
