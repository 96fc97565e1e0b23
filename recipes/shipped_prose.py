"""English prose whose licences were read: the documentation of Debian packages, as plain text.

Get the packages of `PACKAGES` with `apt-get download` and unpack each with `dpkg-deb -x FILE.deb FOLDER/PACKAGE`.
reStructuredText is taken as it is, HTML becomes text. Versions and licences stand in the model's card.
"""

import re
from html.parser import HTMLParser
from pathlib import Path

PACKAGES = {
    "python3.11-doc": "usr/share/doc/python3.11/html/_sources/**/*.rst.txt",
    "postgresql-doc-15": "usr/share/doc/postgresql-doc-15/html/*.html",
    "sqlite3-doc": "usr/share/doc/sqlite3/**/*.html",
    "apache2-doc": "usr/share/doc/apache2-doc/manual/en/**/*.html",
    "python-django-doc": "usr/share/doc/python-django-doc/html/**/*.html",
    "python-sqlalchemy-doc": "usr/share/doc/python-sqlalchemy-doc/**/*.rst",
}
"""Package to the pattern of its text."""
HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
PARAGRAPHS = frozenset({"p", "pre", "h1", "h2", "h3", "h4"})
"""Elements with an empty line before them."""
BLOCKS = (
    PARAGRAPHS
    | HEADINGS
    | {"div", "li", "dt", "dd", "tr", "table", "ul", "ol", "dl", "blockquote", "br", "hr", "section"}
)
HIDDEN = frozenset({"script", "style", "nav", "head", "header", "footer", "noscript"})
HIDDEN_CLASSES = re.compile(
    r"\b(navheader|navfooter|sphinxsidebar|related|footer|headerlink|menu|searchmenu|nosearch|mainmenu|toplang|"
    r"bottomlang|up|nav|page-header|nav-bottom|genindex-jumpbox)\b"
)
VOID = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"})


class _Text(HTMLParser):
    """Collects the text of a page, without its navigation; `pre` keeps its lines."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.open: list[tuple[str, bool]] = []
        self.num_hidden = self.num_pre = self.num_breaks = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in BLOCKS:
            self._break(2 if tag in PARAGRAPHS else 1)
        if tag in VOID:
            return
        classes = dict(attrs).get("class") or ""
        hides = tag in HIDDEN or HIDDEN_CLASSES.search(classes) is not None
        self.open.append((tag, hides))
        self.num_hidden += hides
        self.num_pre += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID or tag not in (name for name, _ in self.open):
            return
        while self.open:
            name, hides = self.open.pop()
            self.num_hidden -= hides
            self.num_pre -= name == "pre"
            if name == tag:
                break
        if tag in BLOCKS:
            self._break(1)

    def handle_data(self, data: str) -> None:
        if self.num_hidden:
            return
        text = data if self.num_pre else re.sub(r"\s+", " ", data)
        if not text.strip() and (self.num_breaks or not self.parts):
            return
        if self.num_breaks:
            self.parts.append("\n" * self.num_breaks)
            self.num_breaks = 0
            text = text if self.num_pre else text.lstrip(" ")
        self.parts.append(text)

    def _break(self, num_lines: int) -> None:
        if not self.num_hidden:
            self.num_breaks = max(self.num_breaks, num_lines)


def html_text(page: str) -> str:
    """Returns what a reader of a page of documentation reads."""
    parser = _Text()
    parser.feed(page)
    text = "".join(parser.parts).replace("\u00a0", " ").replace("¶", "")
    text = re.sub(r"[ \t]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def prose_documents(folder: Path) -> list[tuple[str, str]]:
    """Returns (name, text) of every page of the unpacked packages, in a fixed order.

    Raises:
        SystemExit: a package is not there.
    """
    documents = []
    for package, pattern in PACKAGES.items():
        files = sorted(path for path in (folder / package).glob(pattern) if path.is_file() and not path.is_symlink())
        if not files:
            raise SystemExit(f"no text of {package} is in {folder / package}; see {__file__}")
        for path in files:
            text = path.read_text(encoding="utf-8", errors="replace")
            text = html_text(text) if path.suffix == ".html" else text
            if len(text) >= 500 and "genindex" not in path.name and "_modules" not in path.parts:
                documents.append((f"{package}/{path.relative_to(folder / package)}", text))
    return documents
