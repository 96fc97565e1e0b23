"""The frame of a self-contained HTML page: it loads nothing, runs no script, follows the light or dark setting."""

from patchpad.pages.page_style import PAGE_CSS
from patchpad.pages.svg import escape_text


def html_page(title: str, main: str) -> str:
    """Returns a whole document.

    Args:
        title: plain text; it is escaped.
        main: what the page shows, as HTML.
    """
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape_text(title)}</title>
<style>
{PAGE_CSS}</style>
</head>
<body>
<main>
{main}</main>
</body>
</html>
"""
