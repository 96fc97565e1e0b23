"""The page of the study's findings: its blocks are those that the committed results give, and say what they hold."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from patchpad.config import Config, TrainConfig
from patchpad.errors import DataError
from patchpad.pages.plot_layout import Layout
from patchpad.pages.point_labels import distance
from patchpad.pages.svg import STANDALONE_PADDING
from patchpad.study.definition import load_study

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "study_page.py"
CALLS = {"never": 0.0625, "0.1875": 0.25, "stored": 0.24, "always": 1.0}
CLAIMS = ("C1", "C2", "C3", "C4")
TIER_1 = ["fixed1-never", "fixed4-never", "fixed16-never", "fixed16-entropy"]


def loaded():
    specification = importlib.util.spec_from_file_location("study_page", RECIPE)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """The recipe in a folder of its own, with the pages as they are without results."""
    module = loaded()
    for name in ("docs/results/laptop", "docs/figures"):
        (tmp_path / name).mkdir(parents=True)
    empty = module.contents(None)
    paths = {path: tmp_path / path.relative_to(ROOT) for path in module.BLOCKS}
    for page, copy in paths.items():
        copy.write_text(module.filled(page.read_text(encoding="utf-8"), empty[page]), encoding="utf-8")
    places = {"ROOT": tmp_path, "RESULTS": tmp_path / "docs" / "results" / "laptop"}
    places |= {"FIGURES": tmp_path / "docs" / "figures", "PAGE": paths[module.PAGE], "README": paths[module.README]}
    places["APPENDIX"] = paths[module.APPENDIX]
    places["BLOCKS"] = {paths[page]: names for page, names in module.BLOCKS.items()}
    for name, value in places.items():
        monkeypatch.setattr(module, name, value)
    return module


def tables(flops: float = 0.0) -> dict:
    """What is measured with or without scratchpads."""
    rows = [{"position": place, "bits_per_byte": 2 + flops + place / 8, "num_bytes": 10} for place in (1, 2, 3)]
    classes = [{"class": "letter", "num_scratchpads": int(10 * flops), "num_bytes": 100}]
    return {"bits_per_byte_by_position": rows, "mean_patch_lag": 2.0, "scratchpads_by_class": classes}


def result(name: str, seed: int, bits: dict[str, float], *, text="books", tier=1, bytes_seen=16_000_000) -> dict:
    """A made-up result; `bits` are bits per byte at each point."""
    points = [
        {
            "at": at,
            "bits_per_byte": value,
            "num_bytes": 1000,
            "scratchpads_per_byte": CALLS[at] - 0.0625,
            "trunk_calls_per_byte": 1.0 if "fixed1-" in name else CALLS[at],
            "flops_per_byte": 8e6 if "fixed1-" in name else 8e6 * CALLS[at],
            "trunk_cache_bytes_per_byte": 8192.0 if "fixed1-" in name else 512.0,
        }
        for at, value in bits.items()
    ]
    facts = {"num_documents": 3, "num_bytes": 1000, "sha256": text}
    provenance = dict.fromkeys(("hardware", "threads", "package_version", "torch_version", "commit"), "x")
    training = {"steps": 10, "bytes_seen": bytes_seen, "wall_seconds": 4.0, "processor_seconds": 4.0}
    row = {"bytes_seen": 1000, "training_bits_per_byte": 3.0, "validation_bits_per_byte": None}
    return {
        "format_version": 1,
        **{"arm": name, "seed": seed, "text": text, "tier": tier, "exploratory": tier > 1},
        "provenance": provenance | {"date": "2026-11-25T10:00:00"},
        "config": Config(train=TrainConfig(learning_rate_ratios={"trunk": 0.5})).to_dict(),
        "data": {"training": facts, "validation": facts, "evaluated": facts},
        "evaluation": {"bytes": 1000, "scratchpads_per_byte": [0.1875]},
        "parameters": {"trunk": 2_000_000, "entropy_head": 100_000 if len(bits) > 1 else 0},
        "training": training | {"bytes_per_second": 8000.0, "curve": [row]},
        "measured": {
            "points": points,
            **{"null_context_bits_per_byte": 3.0, "entropy_head_bits_per_byte": 2.3 if len(bits) > 1 else None},
            **{"without_scratchpads": tables(), "stored": tables(0.5 if len(bits) > 1 else 0.0)},
        },
        "compressors": {"xz": 2.5, "bz2": 2.4},
    }


def write(folder: Path, results: list[dict], planned: tuple[str, ...] = ()) -> None:
    """Writes made-up results as those of a study."""
    arms = {
        one["arm"]: {"name": one["arm"], "seeds": [0, 1], **{key: one[key] for key in ("text", "tier", "exploratory")}}
        for one in results
    }
    arms |= {name: {"name": name, "text": "books", "tier": 1, "exploratory": False, "seeds": [0]} for name in planned}
    study = {"format_version": 2, "name": "laptop", "text": "?", "arms": list(arms.values())}
    study["references"] = {"books": [TIER_1[0], TIER_1[2]], "code": []}
    (folder / "study.json").write_text(json.dumps(study))
    for one in results:
        (folder / f"{one['arm']}-seed{one['seed']}.json").write_text(json.dumps(one))


def curve(never=2.2, trained=2.1, always=2.15, stored=2.11) -> dict[str, float]:
    return {"never": never, "0.1875": trained, "stored": stored, "always": always}


def rows_of(text: str) -> list[dict[str, str]]:
    """The rows of the first table in a text."""
    lines = text[text.index("| ") :].split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def claims(recipe, claim: str) -> list[dict[str, str]]:
    return [row for row in rows_of(recipe.claims_table(recipe.read())) if row["claim"] == claim]


def tier_1() -> list[dict]:
    plain = [
        (name, seed, {"stored": bits + seed / 50})
        for name, bits in zip(TIER_1, (2.0, 2.1, 2.2), strict=False)
        for seed in (0, 1)
    ]
    return [result(*one) for one in plain] + [result(TIER_1[3], 1, curve()), result(TIER_1[3], 2, curve(trained=2.3))]


def test_pages_and_figures_are_made_from_the_committed_results():
    recipe = loaded()
    findings = recipe.read() if recipe.RESULTS.exists() else None
    for page, blocks in recipe.contents(findings).items():
        text = page.read_text(encoding="utf-8")
        assert text == recipe.filled(text, blocks), "run python recipes/study_page.py"
    plots = recipe.figures(findings)
    assert sorted(recipe.FIGURES.glob("study-*.svg")) == sorted(plots)
    for path, plot in plots.items():
        assert path.read_text(encoding="utf-8") == recipe.drawn(path, plot), "run python recipes/study_page.py"


def test_no_label_of_a_committed_figure_is_nearer_to_another_mark_than_to_its_own():
    recipe = loaded()
    for path, plot in recipe.figures(recipe.read()).items():
        layout = Layout.of(plot, STANDALONE_PADDING)
        marks = [layout.frame.at(point) for one in layout.shown if one.has_markers for point in one.points]
        shown = {one.series.label for one, _ in layout.labels} | {one.series.label for one, _, _ in layout.legend}
        if plot.direct_labels:
            assert {one.series.label for one in layout.shown if one.points} <= shown | {""}, path.name
        for one, label in layout.labels:
            if label.box[0] < layout.frame.x.end:  # the others are names at the ends of lines, joined to them
                others = [mark for mark in marks if mark != label.mark]
                own = distance(label.box, label.mark)
                assert all(own < distance(label.box, mark) for mark in others), (path.name, label.text)
                assert label.mark in [layout.frame.at(point) for point in one.points]


def test_arms_without_and_with_scratchpads_share_a_colour_and_numbers_stand_at_their_arms():
    recipe = loaded()
    plots = recipe.figures(recipe.read())
    plot = plots[recipe.FIGURES / "study-books-8M-patchifiers-cache.svg"]
    series = {one.group: one for one in plot.series if one.label}
    plain, having = series["spacebyte-never"], series["spacebyte-entropy"]
    assert (plain.look, plain.hollow, having.look, having.hollow) == (having.look, True, plain.look, False)
    labels = {label.text: label for _, label in Layout.of(plot, STANDALONE_PADDING).labels}
    heights = [labels[f"spacebyte-{name}"].mark[1] for name in ("never 0.18", "entropy 0.32")]
    assert heights[0] < heights[1]  # 1.8405 is above 1.8361
    (arrow,) = [one for one in plot.series if one.arrow and one.look == plain.look]
    assert list(arrow.points) == [plain.points[0], having.points[0]]
    families = [one.look for one in plot.series if one.label and one.hollow]
    assert len(set(families)) == 7  # 4, 8 and 16 bytes, SpaceByte, entropy, H-Net, BPE


def test_figures_of_claims_show_the_numbers_of_the_table():
    recipe = loaded()
    findings = recipe.read()
    rows = {claim: [row for row in rows_of(recipe.claims_table(findings)) if row["claim"] == claim] for claim in CLAIMS}
    percents = {claim: [row["of the reference"].removesuffix(" %") for row in rows[claim]] for claim in CLAIMS}
    plots = recipe.claim_figures(findings)
    labels = {
        name: [text for one in plot.series for text in one.point_labels or () if text] for name, plot in plots.items()
    }
    assert labels["claim-1"] == [f"{float(percent):+.1f} %" for percent in percents["C1"]]
    assert labels["claim-2"] == [f"{float(percent):+.1f} %" for percent in percents["C2"][:4]]
    marks = {}
    for one in plots["claim-3"].series:
        ((value, row),) = one.points
        marks.setdefault(plots["claim-3"].row_names[int(row)], []).append(value)
    assert [len(values) for values in marks.values()] == [3, 3, 1, 1, 1, 1, 1, 1]
    means = [sum(values) / len(values) for values in marks.values()]
    assert all(min(abs(mean - float(percent)) for percent in percents["C3"]) < 0.006 for mean in means)
    curve = next(one for one in plots["claim-4"].series if one.label == "one rate, 16 MB")
    assert curve.points[0][1] == pytest.approx(float(percents["C4"][0]), abs=0.006)
    assert labels["claim-6"][:2] == ["1.9019", "1.9014"]


def test_figures_are_written_as_pdf_too(recipe, tmp_path):
    pytest.importorskip("matplotlib")
    write(recipe.RESULTS, tier_1())
    recipe.main(["--pdf", str(tmp_path / "pdf")])
    names = {path.stem for path in recipe.FIGURES.iterdir()}
    assert {path.stem for path in (tmp_path / "pdf").iterdir()} == names
    assert (tmp_path / "pdf" / "study-finding.pdf").read_bytes().startswith(b"%PDF-")


def test_roles_name_arms_of_the_study_and_pairs_see_the_same_bytes():
    recipe = loaded()
    study = load_study(ROOT / "configs" / "studies" / "laptop.yaml")
    arms = {arm.name: arm for arm in study.fields.arms}
    assert set(recipe.ARMS.values()) <= set(arms)
    families = [("C5", "plain fixed", name) for name in recipe.PATCHIFIERS]
    for _, *roles in (*(row[:3] for row in recipe.CLAIMS), *families):
        pair = [arms[recipe.ARMS[role]] for role in roles]
        assert len({(study.text_of(arm), arm.bytes_seen, arm.tier) for arm in pair}) == 1, roles
    assert {(study.text_of(arm), arm.tier) for arm in arms.values()} == set(recipe.PARTS.values())
    assert set(study.fields.data) == set(recipe.BYTE_MODELS)


def test_without_results_the_recipe_says_so_and_changes_nothing(recipe):
    before = {page: page.read_text() for page in recipe.BLOCKS}
    with pytest.raises(SystemExit, match="docs/results/laptop holds no results of the study"):
        recipe.main([])
    assert {page: page.read_text() for page in recipe.BLOCKS} == before
    assert list(recipe.FIGURES.iterdir()) == []


def test_the_recipe_needs_no_torch():
    code = "import runpy, sys; runpy.run_path(sys.argv[1]); sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    environment = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    subprocess.run([sys.executable, "-c", code, str(RECIPE)], env=environment, check=True)


def test_pages_hold_tables_and_plots_and_are_the_same_when_written_again(recipe):
    write(recipe.RESULTS, tier_1())
    stale = recipe.FIGURES / "study-old.svg"
    stale.write_text("")
    recipe.main([])
    page, readme = recipe.APPENDIX.read_text(), recipe.README.read_text()
    recipe.main([])
    assert (page, readme) == (recipe.APPENDIX.read_text(), recipe.README.read_text())
    assert recipe.short_table(recipe.read()) in recipe.PAGE.read_text()
    assert page.count("No results yet.") == 2  # tier 2 and code
    assert not stale.exists()
    names = {path.name for path in recipe.FIGURES.iterdir()}
    kinds = ("flops", "cache", "threshold", "positions", "classes")
    of_arms = {f"study-books-16M-{kind}.svg" for kind in kinds}
    of_claims = {f"study-{name}.svg" for name in ("finding", "claim-1", "claim-2", "claim-3", "claim-4")}
    assert names == of_arms | of_claims
    assert all(f"](figures/{name})" in page for name in of_arms)
    assert all(f"](figures/{name})" in recipe.PAGE.read_text() for name in of_claims)
    assert "](docs/figures/study-finding.svg)" in readme
    for path in recipe.FIGURES.iterdir():
        ElementTree.fromstring(path.read_text())
    assert "Differences from fixed1-never, seed by seed:" in page
    assert "Differences from fixed4-never" not in page
    assert "6 tables of 4,096 n-grams" in page
    assert "learning rate 0.002, of the trunk 0.001." in page


def test_arms_are_set_against_the_byte_model_and_the_compressors(recipe):
    write(recipe.RESULTS, tier_1())
    arms = {row["arm"]: row for row in rows_of(recipe.part(recipe.read(), "tier 1"))}
    assert list(arms) == [*TIER_1, "xz (compressor)", "bz2 (compressor)"]
    assert arms[TIER_1[3]]["FLOPs over the byte model's"] == "0.240"
    assert arms[TIER_1[3]]["parameters"] == "2,100,000"
    assert arms[TIER_1[3]]["of these, entropy head"] == "100,000"
    assert arms[TIER_1[0]]["bits per byte"] == "2.0100 ± 0.0141"
    assert arms["xz (compressor)"]["bits per byte"] == "2.5000"
    front = {row["model"]: row for row in rows_of(recipe.short_table(recipe.read()))}
    assert front["16-byte patches"]["against the byte model"] == "+9.95 %"
    assert front["16-byte patches with scratchpads"]["trunk KV bytes per byte"] == "512.0"


def test_a_claim_rests_on_the_seeds_that_both_arms_have(recipe):
    write(recipe.RESULTS, tier_1())
    (row,) = claims(recipe, "C1")
    assert (row["arm"], row["less"]) == ("fixed16-entropy", "fixed16-never")
    assert row["text, bytes seen"] == "books, 16M"
    assert (row["seeds in common"], row["each seed"]) == ("1", "-0.1100")  # 2.11 less 2.22, seed 1 alone
    assert row["of the reference"] == "-4.95 %"
    plain, row, share = claims(recipe, "C2")
    assert (plain["arm"], plain["each seed"]) == ("fixed16-never", "+0.2000, +0.2000")
    assert row["FLOPs per byte, of both"] == "1,920,000 / 8,000,000 = 0.24"
    results = tier_1()
    results[-1]["measured"]["points"][-2]["flops_per_byte"] = 1.0  # seed 2, which the byte model has not
    write(recipe.RESULTS, results)
    assert claims(recipe, "C2")[1]["FLOPs per byte, of both"] == row["FLOPs per byte, of both"]
    arms = {row["arm"]: row for row in rows_of(recipe.part(recipe.read(), "tier 1"))}
    assert arms[TIER_1[3]]["FLOPs over the byte model's"] == "0.240"
    assert row["trunk KV bytes per byte, of both"] == "512.0 / 8,192.0 = 0.0625"
    assert (share["arm"], share["less"]) == ("fixed16-entropy, of the way from fixed16-never", "to fixed1-never")
    assert (share["of the reference"], share["seeds in common"], share["each seed"]) == ("55 %", "1", "55 %")


def test_there_is_no_share_of_a_way_that_leads_nowhere(recipe):
    results = tier_1()
    for one in results:
        if one["arm"] == "fixed1-never":
            one["measured"]["points"][0]["bits_per_byte"] = 2.22 if one["seed"] else 2.1
    write(recipe.RESULTS, results)
    assert [row["less"] for row in claims(recipe, "C2")] == ["fixed1-never"] * 2


def test_equal_trunk_calls_are_compared_at_exactly_that_rate_too(recipe):
    write(recipe.RESULTS, tier_1())
    stored, exact, _ = claims(recipe, "C3")
    assert (stored["arm"], stored["each seed"]) == ("fixed16-entropy", "-0.0100")
    assert (exact["arm"], exact["less"]) == ("fixed16-entropy at 0.1875", "fixed4-never")
    assert (exact["each seed"], exact["trunk calls per byte, of both"]) == ("-0.0200", "0.2500 / 0.2400 = 1.04")


@pytest.mark.parametrize(
    ("calls", "difference"),
    [(0.24, "-0.0100"), (0.245, "-0.0150"), (0.0625, "+0.0800"), (1.0, "+0.0300"), (0.05, None), (1.01, None)],
)
def test_at_equal_flops_bits_lie_on_the_line_between_points(recipe, calls, difference):
    results = tier_1()
    for one in results:
        if one["arm"] == "fixed4-never":
            one["measured"]["points"][0]["flops_per_byte"] = 8e6 * calls
    write(recipe.RESULTS, results)
    rows = [row for row in claims(recipe, "C3") if "equal FLOPs" in row["arm"]]
    assert [row["each seed"] for row in rows] == ([] if difference is None else [difference])  # seed 1: less 2.12


def test_arms_without_results_leave_their_rows_out_and_are_named(recipe):
    write(recipe.RESULTS, [one for one in tier_1() if one["arm"] != "fixed4-never"], planned=("fixed4-never",))
    text = recipe.claims_table(recipe.read())
    assert claims(recipe, "C3") == claims(recipe, "C5") == claims(recipe, "C6") == []
    assert text.splitlines()[-1] == "No result yet of: fixed16-entropy (seed 0), fixed4-never."


def test_a_step_that_rises_in_one_seed_alone_is_not_monotonic(recipe):
    write(recipe.RESULTS, [result(TIER_1[3], seed, curve(always=always)) for seed, always in ((0, 2.14), (1, 1.9))])
    last = claims(recipe, "C4")[-1]
    assert last["bits per byte, difference"] == "higher after 1 of 2 steps in a seed or more: not monotonic"


def test_results_of_other_windows_are_refused(recipe):
    results = tier_1()
    results[0]["data"]["evaluated"] = {"num_bytes": 1001, "sha256": "others"}
    write(recipe.RESULTS, results)
    with pytest.raises(SystemExit, match="have different measured windows under the name `books`"):
        recipe.main([])


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (curve(), "higher after 1 of 2 steps in a seed or more: not monotonic"),
        (curve(always=2.05), "monotonic: never higher"),
    ],
)
def test_steps_along_the_threshold_leave_the_stored_one_out(recipe, bits, words):
    write(recipe.RESULTS, [result(TIER_1[3], seed, bits) for seed in (0, 1)])
    *steps, last = claims(recipe, "C4")
    assert [(row["arm"].split(" at ")[1], row["less"]) for row in steps] == [
        ("0.1875", "at never"),
        ("always", "at 0.1875"),
    ]
    assert [row["each seed"] for row in steps] == [
        ", ".join([f"{change:+.4f}"] * 2) for change in (-0.1, bits["always"] - 2.1)
    ]
    assert last["bits per byte, difference"] == words


def test_patchifiers_are_set_side_by_side_once_all_have_results(recipe):
    half = {"tier": 2, "bytes_seen": 8_000_000}
    names = [recipe.ARMS[f"{plain}{name}"] for plain in ("plain ", "") for name in recipe.PATCHIFIERS]
    bits = (2.0, 2.1, 2.25, 2.2, 1.9, 2.0, 1.95, 1.96)
    results = [result(name, 0, {"stored": value}, **half) for name, value in zip(names, bits, strict=True)]
    write(recipe.RESULTS, results[:-1])
    assert len(claims(recipe, "C5")) == 4  # three with minus without, and how far apart those without are
    write(recipe.RESULTS, results)
    rows = claims(recipe, "C5")
    assert [row["bits per byte, difference"] for row in rows] == [
        "-0.1000",
        "-0.1000",
        "-0.3000",
        "-0.2400",
        "+0.2500",
        "+0.1000",
    ]
    assert rows[0]["arm"] == "fixed8-entropy (exploratory)"
    assert rows[-1]["of the reference"] == "+5.26 %"


def test_many_arms_are_plotted_in_two_parts(recipe):
    half = {"tier": 2, "bytes_seen": 8_000_000}
    same = [recipe.ARMS[role] for role in ("short plain 16", "short 16", "random", "stride")]
    others = [recipe.ARMS[role] for role in ("plain hnet", "hnet", "spacebyte")]
    results = [result(name, 0, curve() if "entropy" in name else {"stored": 2.0}, **half) for name in same + others]
    write(recipe.RESULTS, results[:-1])
    assert {path.name for path in recipe.figures(recipe.read()) if "flops" in path.name} == {"study-books-8M-flops.svg"}
    write(recipe.RESULTS, results)
    recipe.main([])
    page = recipe.APPENDIX.read_text()
    assert "-patches-cache.svg" not in page  # equal patches have equal caches
    assert "-patches-positions.svg" in page
    for words, shown in (("16-byte-patches", same), ("patchifiers", [*same[:2], *others])):
        plot = (recipe.FIGURES / f"study-books-8M-{words}-flops.svg").read_text()
        assert {name for name in same + others if re.search(rf">{name}( [0-9.]+)?<", plot)} == set(shown)
        assert f"](figures/study-books-8M-{words}-flops.svg)" in page


def test_arms_that_saw_other_bytes_are_not_compared(recipe):
    results = tier_1()
    for one in results[:2]:
        one["training"]["bytes_seen"] *= 2
    write(recipe.RESULTS, results)
    with pytest.raises(SystemExit, match="fixed4-never and fixed1-never have not seen the same bytes"):
        recipe.main([])


def test_a_comparison_without_a_place_and_a_page_without_a_block_are_refused(recipe):
    write(recipe.RESULTS, [result("new", 0, {"stored": 2.0}, tier=3)])
    with pytest.raises(DataError, match="no block of the page is for books-16M"):
        recipe.read()
    with pytest.raises(DataError, match=r"the page has the blocks \[\], not \['claims'\]"):
        recipe.filled("nothing", {"claims": ""})
