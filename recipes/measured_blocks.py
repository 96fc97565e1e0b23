"""Blocks of a Markdown page that recipes write from result files; what stands around them is written by hand."""

END = "<!-- end of measured -->"


def fill_block(page: str, begin: str, content: str) -> str:
    """Returns a page with what stands between a line and the next `END` made anew.

    There are blank lines around it where the page has them.

    Args:
        page: holds `begin` once.
        begin: the line that opens the block, a comment that names it.
        content: Markdown.
    """
    before, rest = page.split(begin)
    replaced, after = rest.split(END, 1)
    gap = "\n\n" if replaced.startswith("\n\n") else "\n"
    return f"{before}{begin}{gap}{content.rstrip()}{gap}{END}{after}"
