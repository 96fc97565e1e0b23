"""The pages in docs/ do what they say: their Python is run, and so are the tour's commands."""

import json
import re
import runpy
import shlex
import shutil
import unicodedata
from pathlib import Path

import pytest

import patchpad
from patchpad.cli.app import COMMANDS, main
from patchpad.config import Config, load_config
from patchpad.study.definition import load_study
from patchpad.tasks.kinds import load_task
from patchpad.testing import ALL_OPTIONS
from patchpad.training.checkpoint import BUNDLED_MODEL

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")
PICTURE = re.compile(r"<(?:img|source) [^>]*?src(?:set)?=\"([^\"]*)\"")
ON_THE_SITE = runpy.run_path(str(ROOT / "recipes" / "site_pages.py"))["OF_THE_ROOT"]


BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [content for name, content in BLOCK.findall(page.read_text(encoding="utf-8")) if name == language]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with the files that the pages name, and with the small model as RUN."""
    shutil.copytree(BUNDLED_MODEL, tmp_path / "RUN")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copy(ROOT / "README.md", tmp_path)
    (tmp_path / "text.txt").write_text("It was a text of no great length.\n" * 200)
    (tmp_path / "prompts.txt").write_text("It was\nShe\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["python", "generation", "tour", "troubleshooting", "continuing"])
def test_the_python_of_a_page_runs_from_top_to_bottom(workplace, name):
    code = blocks(ROOT / "docs" / f"{name}.md", "python")
    assert code
    namespace = {}
    for block in code:
        exec(compile(block, f"docs/{name}.md", "exec"), namespace)


SLOW_PAGES = [pytest.param(name, marks=pytest.mark.slow) for name in ("continuing", "evaluation", "studies", "tour")]


@pytest.mark.parametrize("name", ["generation", *SLOW_PAGES])
def test_the_commands_of_a_page_run_in_order(workplace, capsysbinary, name):
    for block in blocks(ROOT / "docs" / f"{name}.md", ""):
        for line in block.splitlines():
            assert line.startswith("patchpad ")
            assert main(shlex.split(line)[1:]) == 0, (line, capsysbinary.readouterr().err)
    assert capsysbinary.readouterr().out


def test_the_commands_of_the_readme_run_in_an_empty_folder(tmp_path, monkeypatch, capsysbinary):
    monkeypatch.chdir(tmp_path)
    for line in "".join(blocks(ROOT / "README.md", "")[1:]).splitlines():
        words = shlex.split(line.replace("--max-new-bytes 300", "--max-new-bytes 20"))
        assert words[0] == "patchpad"
        assert main(words[1:]) == 0, (line, capsysbinary.readouterr().err)
    assert (tmp_path / "page.html").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for picture in PICTURE.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / picture).is_file(), picture
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target:
            path = (page.parent / target).resolve() if target else page
            assert path.exists(), target
            is_built = path.is_relative_to(ROOT / "docs") or path.name in ON_THE_SITE
            assert is_built or page.parent == ROOT, f"{target} is not a page that `make docs` builds"
            if anchor and path.suffix == ".md":
                assert anchor[1:] in anchors(path), f"{target}{anchor}: the page has {sorted(anchors(path))}"


def anchors(page: Path) -> set[str]:
    """Returns the headings of a page by the names that GitHub gives them and the built pages as well."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    found = set()
    for heading in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip()
        on_github = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        ascii_only = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
        on_the_site = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", ascii_only).strip().lower())
        found |= {on_github} & {on_the_site}
    return found


def test_anchors_are_names_on_github_and_on_the_site_alike(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A `key`: of (two)\n\n## One - two\n\n```\n# no heading\n```\n")
    assert anchors(page) == {"a-key-of-two"}  # GitHub says one---two, the site one-two


def test_every_page_is_in_the_menu_of_the_built_pages_once():
    menu = re.findall(r"([a-z_]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), flags=re.MULTILINE)
    pages = [page.name for page in PAGES if page.parent != ROOT]
    assert sorted(menu) == sorted([*pages, "from_scratch.md", *ON_THE_SITE.values()])


def test_the_reference_has_every_public_name_once():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    named = re.findall(r"^::: patchpad\.(\w+)$", page, flags=re.MULTILINE)
    assert sorted(named) == sorted({*patchpad.__all__, "errors", "shapes"} - {"plugins"})


def test_the_study_of_the_studies_page_is_read(workplace):
    (page,) = blocks(ROOT / "docs" / "studies.md", "yaml")
    shown = workplace / "configs" / "studies" / "shown.yaml"
    shown.write_text(page)
    assert [run.name for run in load_study(shown).runs] == [
        *("fixed16-never-seed0", "fixed16-never-seed1", "fixed16-random-seed0")
    ]
    assert load_study(shown).runs[0].config == load_study(shown.with_name("tiny.yaml")).runs[0].config


def test_the_task_of_the_languages_page_is_read(workplace):
    (page,) = blocks(ROOT / "docs" / "languages.md", "yaml")
    (workplace / "shown.yaml").write_text(page)
    task = load_task(workplace / "shown.yaml")
    assert (task.kind, task.reference, task.trained) == ("parallel", "en", ("en", "de"))


def test_the_configuration_page_has_every_field_as_it_is_now():
    recipe = runpy.run_path(str(ROOT / "recipes" / "configuration_page.py"))
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == recipe["filled"](page), "run python recipes/configuration_page.py"
    for section, values in Config().to_dict().items():
        for key, value in values.items() if isinstance(values, dict) else ():
            nested = value if isinstance(value, dict) else {key: value}
            assert all(f"| `{name}` | " in page for name in nested), (section, key)


def test_the_evaluation_page_has_every_key_of_its_commands(workplace, capsys):
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    keys = set()
    for block in blocks(ROOT / "docs" / "evaluation.md", ""):
        for line in (line for line in block.splitlines() if "evaluate" in line or "cost" in line):
            arguments = shlex.split(line)[1:]
            assert main([*arguments, *([] if "--json" in arguments else ["--json"])]) == 0
            printed = json.loads(capsys.readouterr().out)
            keys |= set(printed["points"][0] if "points" in printed else printed)
    assert len(keys) > 15
    assert [key for key in sorted(keys) if f"`{key}`" not in page] == []


def test_the_files_of_the_configuration_page_are_configurations(tmp_path):
    shown = blocks(ROOT / "docs" / "configuration.md", "yaml")
    for number, block in enumerate(shown):
        file = tmp_path / f"{number}.yaml"
        file.write_text(block)
        assert load_config(file) != Config()
    assert load_config(file).train.scratchpad_threshold_nats == 1.5


def test_every_command_and_every_public_name_is_documented():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [name for name in COMMANDS if f"patchpad {name}" not in text] == []
    python = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    results = {"ByteLMOutput", "Completion", "DecodingState", "Inspection", "PADDING", "Point", "Run", "TextStream"}
    names = set(patchpad.__all__) - results - {"__version__", "ByteLM"}
    assert [name for name in sorted(names) if f"patchpad.{name}" not in python] == []


def test_options_page_names_keys_of_the_configuration_and_every_option_of_the_tests():
    page = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    config = Config().to_dict()
    named = re.findall(r"`(model|train)\.(\w+)[:`]", page)
    assert [(section, key) for section, key in named if key not in config[section]] == []
    assert {("model", key) for key in ALL_OPTIONS if key != "trunk_heads"} | {("train", "threshold_spread")} <= set(
        named
    )
