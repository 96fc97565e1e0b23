"""The page at `/` of `patchpad serve`, hand-written and without dependencies, and what it asks the model.

The style is that of all pages (`patchpad.pages`) and then `style.css`; the scripts are modules, which load each other.
"""

from pathlib import Path

from patchpad.pages.interactive_style import INTERACTIVE_CSS
from patchpad.pages.page_style import PAGE_CSS

FOLDER = Path(__file__).parent
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of the page: it loads and asks its own server alone, and runs no script but its files."""


def read_files() -> dict[str, tuple[bytes, str]]:
    """Returns what lies under `/playground/`: name -> content and media type. `index.html` is the page at `/` too."""
    files = {
        path.name: (path.read_bytes(), MEDIA_TYPES[path.suffix])
        for path in sorted(FOLDER.iterdir())
        if path.suffix in MEDIA_TYPES
    }
    style, media_type = files["style.css"]
    return {**files, "style.css": ((PAGE_CSS + INTERACTIVE_CSS).encode("utf-8") + style, media_type)}
