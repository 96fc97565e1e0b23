"""Gathers the pages of the documentation site in build/pages, from which `make docs` builds it.

Usage: python recipes/site_pages.py

The pages are the files of docs/. Added to them are the pages of the root folder that the site shows (contributing,
changes, security), the notebook as a page, and the options of every command, from the command line's own help. So none
of these has a copy that can be out of date.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from run_notebook import code_of, stored_output

from patchpad.cli.app import COMMANDS, build_app

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "build" / "pages"
OF_THE_ROOT = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "SECURITY.md": "security.md"}
"""Pages in the root folder -> their names on the site."""
THEME = ROOT / "recipes" / "site"
"""What the site's pages look like beyond the builder's theme: a template, and files beside the pages."""
NOTEBOOK = "from_scratch"
COMMANDS_HERE = "<!-- recipes/site_pages.py writes the commands here -->"
LINK = re.compile(r"(\]\()([^)\s]+)(?=\))")
NO_DEFAULT = re.compile(r" \*\[default: (False|None)\]\*")


def site_target(target: str) -> str:
    """Returns where a link of a page in docs/ or in the root folder leads on the site."""
    path, anchor = re.fullmatch(r"([^#]*)(#.*)?", target).groups(default="")
    path = path.removeprefix("../").removeprefix("docs/")
    path = OF_THE_ROOT.get(path, path)
    return (f"{NOTEBOOK}.md" if path == f"{NOTEBOOK}.ipynb" else path) + anchor


def with_site_links(page: str) -> str:
    """Returns a page with its links as the site needs them; addresses of the web and code stay as they are."""
    blocks = re.split(r"(^```.*?^```$)", page, flags=re.MULTILINE | re.DOTALL)
    for number in range(0, len(blocks), 2):
        blocks[number] = LINK.sub(
            lambda link: link[0] if "://" in link[2] else link[1] + site_target(link[2]), blocks[number]
        )
    return "".join(blocks)


def command_text(name: str) -> str:
    """Returns the help of a command, and of the commands that it has, as Markdown."""
    text = build_app(name)[name].generate_docs()
    assert isinstance(text, str)
    text = re.sub(r"^## Table of Contents\n\n(- .*\n)+", "", NO_DEFAULT.sub("", text), flags=re.MULTILINE)
    text = re.sub(r"^(#+ )", r"#\1patchpad ", text, flags=re.MULTILINE)
    text = re.sub(r"^```console\n", "```\npatchpad ", text, flags=re.MULTILINE)
    text = re.sub(r"^(patchpad .*?) -m \S+", r"\1", text, flags=re.MULTILINE)  # as `python -m` runs it
    text = re.sub(r"^(\*\*\w+\*\*):$", r"\1", text, flags=re.MULTILINE)
    return text.replace("](#", "](#patchpad-").strip() + "\n"


def notebook_text(notebook: dict[str, Any]) -> str:
    """Returns a notebook as a page: its text, its code and what the code printed."""
    parts = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            parts.append(code_of(cell))
            continue
        parts.append(f"```python\n{code_of(cell)}\n```")
        if printed := stored_output(cell).strip("\n"):
            parts.append(f"``` {{ .text .output }}\n{printed}\n```")
    note = f"[This page as a notebook]({NOTEBOOK}.ipynb)"
    return "\n\n".join([parts[0], note, *parts[1:]]) + "\n"


def gather(pages: Path) -> None:
    """Writes the pages of the site, and all that they show, into a folder; what was there is removed."""
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(ROOT / "docs", pages)
    for file in (*THEME.glob("*.css"), *THEME.glob("*.js")):
        shutil.copy(file, pages)
    notebook = json.loads((pages / f"{NOTEBOOK}.ipynb").read_text(encoding="utf-8"))
    for page in pages.glob("*.md"):
        page.write_text(with_site_links(page.read_text(encoding="utf-8")), encoding="utf-8")
    for name, there in OF_THE_ROOT.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        (pages / there).write_text(with_site_links(text), encoding="utf-8")
    (pages / f"{NOTEBOOK}.md").write_text(notebook_text(notebook), encoding="utf-8")
    commands = pages / "commands.md"
    before, after = commands.read_text(encoding="utf-8").split(COMMANDS_HERE)
    commands.write_text(before + "\n".join(map(command_text, COMMANDS)) + after, encoding="utf-8")


if __name__ == "__main__":
    gather(PAGES)
