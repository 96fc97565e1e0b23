"""Checks the built pages: links and anchors lead somewhere, every page can be reached, and nothing comes from the web.

Usage: python recipes/check_site.py [FOLDER]

FOLDER is build/docs if none is given. This reads the HTML as it was built, so it also finds what the builder does not
know: anchors in pages that are not Markdown, names in docstrings that lead nowhere, and resources of the style. With a
fault it ends with exit code 1 and one line for each.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

SITE = Path(__file__).resolve().parent.parent / "build" / "docs"
LOADS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "embed": "src",
}
"""Elements that load something -> the attribute that says from where. Of `link` elements, some `rel` do."""
LOADING_RELS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "modulepreload", "manifest"}
FROM_CSS = re.compile(r"""(?:@import\s+|url\()\s*["']?([^"')\s;]+)""")
NOT_LINKED = {"404.html"}
"""Pages that a server shows by itself."""


@dataclass
class BuiltPage(HTMLParser):
    """What a page holds: the names of its places, its links, and what it loads."""

    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Takes in an element."""
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag in ("a", "area") and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and LOADING_RELS & set(given.get("rel", "").split()):
            self.loads.append(given.get("href", ""))
        if tag in LOADS and LOADS[tag] in given:
            self.loads.append(given[LOADS[tag]])
        self.loads += [one.split()[0] for one in given.get("srcset", "").split(",") if one.strip()]
        if tag == "img" and "alt" not in given:
            self.faults.append(f"the picture {given.get('src')} has no text for those who do not see it")
        if tag == "autoref":
            self.faults.append(f"the name {given.get('identifier')} leads nowhere")
        self.loads += FROM_CSS.findall(given.get("style", ""))

    def handle_data(self, data: str) -> None:
        """Takes in text; that of styles may load something."""
        if getattr(self, "lasttag", "") == "style":
            self.loads += FROM_CSS.findall(data)


def read(path: Path) -> BuiltPage:
    """Reads a built page."""
    page = BuiltPage()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def is_outside(address: str) -> bool:
    """Whether an address is not a file of the site."""
    return bool(urlsplit(address).scheme or address.startswith("//"))


def file_of(folder: Path, page: Path, address: str) -> Path:
    """Returns the file that an address in a page, or in a style, means."""
    path = unquote(urlsplit(address).path)
    found = (folder / path.lstrip("/") if path.startswith("/") else page.parent / path) if path else page
    return found.resolve() / "index.html" if found.is_dir() else found.resolve()


def faults_of_site(folder: Path) -> Iterator[str]:
    """Yields a line for each fault of a built site."""
    folder = folder.resolve()
    pages = {path: read(path) for path in sorted(folder.rglob("*.html"))}
    for path, page in pages.items():
        name = path.relative_to(folder)
        yield from (f"{name}: {fault}" for fault in page.faults)
        for link in page.links:
            if is_outside(link):
                continue
            target, anchor = file_of(folder, path, link), unquote(urlsplit(link).fragment)
            if not target.is_file():
                yield f"{name}: the link {link} leads to no file"
            elif anchor and target in pages and anchor not in pages[target].ids:
                yield f"{name}: the link {link} leads to no place in {target.relative_to(folder)}"
        yield from (f"{name}: {fault}" for fault in faults_of_loads(folder, path, page.loads))
    for path in sorted(folder.rglob("*.css")):
        loads = FROM_CSS.findall(path.read_text(encoding="utf-8"))
        yield from (f"{path.relative_to(folder)}: {fault}" for fault in faults_of_loads(folder, path, loads))
    reached = reachable(folder, pages)
    for path in pages:
        if path not in reached and path.relative_to(folder).as_posix() not in NOT_LINKED:
            yield f"{path.relative_to(folder)}: no link leads here from index.html"


def faults_of_loads(folder: Path, path: Path, loads: list[str]) -> Iterator[str]:
    """Yields a line for each resource that comes from the web, or is missing."""
    for address in loads:
        if address.startswith(("data:", "#")):
            continue
        if is_outside(address):
            yield f"{address} is loaded from the web"
        elif not file_of(folder, path, address).is_file():
            yield f"{address} is loaded and is not there"


def reachable(folder: Path, pages: dict[Path, BuiltPage]) -> set[Path]:
    """Returns the pages to which links lead from index.html."""
    reached: set[Path] = set()
    waiting = [folder / "index.html"]
    while waiting:
        path = waiting.pop()
        if path in pages and path not in reached:
            reached.add(path)
            waiting += [file_of(folder, path, link) for link in pages[path].links if not is_outside(link)]
    return reached


def main(folder: Path) -> None:
    """Checks a site.

    Raises:
        SystemExit: it has faults, or is not there.
    """
    if not (folder / "index.html").is_file():
        raise SystemExit(f"there is no built site in {folder}: run make docs")
    faults = list(dict.fromkeys(faults_of_site(folder)))
    if faults:
        raise SystemExit("\n".join(faults))
    sys.stdout.write(f"{len(list(folder.rglob('*.html')))} pages: no dead link, no orphan, nothing from the web\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else SITE)
