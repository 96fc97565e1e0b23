"""The frame of a self-contained HTML page: it loads nothing, and follows the light or dark setting."""

import base64
import hashlib

from patchpad.pages.page_style import PAGE_CSS
from patchpad.pages.svg import escape_text


def html_page(title: str, main: str, *, style: str = "", script: str = "") -> str:
    """Returns a whole document.

    Args:
        title: plain text; it is escaped.
        main: what the page shows, as HTML.
        style: rules that come after those of every page.
        script: runs once the page is there; none: the page may not run any.
    """
    policy, element = "default-src 'none'; style-src 'unsafe-inline'", ""
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
        policy, element = f"{policy}; script-src 'sha256-{digest}'", f"<script>{script}</script>\n"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape_text(title)}</title>
<style>
{PAGE_CSS}{style}</style>
</head>
<body>
<main>
{main}</main>
{element}</body>
</html>
"""


def scroll_attributes(name: str) -> str:
    """Returns the attributes of an element that scrolls sideways: the keyboard reaches it, a screen reader names it.

    Args:
        name: of what is in it, as plain text.
    """
    return f'class="scroll" tabindex="0" role="group" aria-label="{escape_text(name)}"'
