"""Plug-ins: how they are loaded, what they may register, and that a checkpoint never loads one."""

import json
import logging
import os
import shlex
import subprocess
import sys
from dataclasses import replace

import pytest
from plugin_tools import PATCHES, config_text, nothing_loaded

import patchpad
from patchpad.cli.app import main, split_switches
from patchpad.config import Config, ModelConfig, PatchifierConfig, TrainConfig, TriggerConfig, load_config
from patchpad.errors import ConfigError, GenerationError, MissingPluginError, PluginError
from patchpad.hub.exported import MODEL_TYPE, described
from patchpad.inference.generator import threshold_from_dials
from patchpad.model.build import build_model
from patchpad.registry import PATCHIFIERS, TRACKERS, TRIGGERS, installed
from patchpad.study.changes import learned_from
from patchpad.study.definition import load_study
from patchpad.tasks.running import model_facts
from patchpad.training.checkpoint import load

pytestmark = pytest.mark.unchecked


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a plug-in that leaves a trace when it is imported, and a text."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_patches.py").write_text(PATCHES)
    (tmp_path / "text.txt").write_text("It was a text. The cat sat on the mat. Nobody knew why.\n" * 60)
    (tmp_path / "c.yaml").write_text(config_text())
    with nothing_loaded():
        yield tmp_path


@pytest.fixture
def fails(capsysbinary):
    """Runs a command that fails, and returns its two lines."""

    def call(*words, code=2):
        capsysbinary.readouterr()
        assert main([str(word) for word in words]) == code
        lines = capsysbinary.readouterr().err.decode().splitlines()
        assert len(lines) in (1, 2), lines
        return "\n".join(lines)

    return call


def write(folder, name, text):
    (folder / name).write_text("from patchpad.plugins import *\nfrom patchpad.patching import *\n" + text)


def train(out="run", *more):
    assert main(["train", "--config", "c.yaml", "--data", "text.txt", "--out", out, "--quiet", *more]) == 0


@pytest.mark.parametrize("plugin", ["my_patches", "my_patches.py", "./my_patches.py", "ABSOLUTE"])
def test_a_module_of_the_working_folder_and_a_file_are_loaded(folder, capsysbinary, plugin):
    plugin = str(folder / "my_patches.py") if plugin == "ABSOLUTE" else plugin
    assert main(["cost", "--config", "c.yaml", "--plugin", plugin, "--json"]) == 0
    assert json.loads(capsysbinary.readouterr().out)["num_params"] > 0
    assert "marks" in PATCHIFIERS
    assert PatchifierConfig(kind="marks").plugin == plugin.rpartition("/")[2]


def test_a_plugin_is_loaded_once_whatever_names_it(folder):
    patchpad.plugins.load("my_patches", "./my_patches.py", folder / "my_patches.py")
    import my_patches  # noqa: F401  # pyrefly: ignore

    assert (folder / "loaded.txt").read_text() == "x"


def test_the_switch_may_stand_anywhere_but_in_the_text_of_an_option():
    words = ["--plugin", "a", "generate", "RUN", "--plugin=b", "--prompt", "--plugin", "--debug", "--plugin"]
    assert split_switches(words) == (["generate", "RUN", "--prompt", "--plugin"], {"--debug"}, ["a", "b", ""])


@pytest.mark.parametrize(
    ("plugin", "expected"),
    [
        ("my_patchs", ("there is no module 'my_patchs'", "Did you mean `my_patches`?")),
        ("no.such.module", ("there is no module 'no.such.module'",)),
        (
            "loose.patches",
            ("there is no module 'loose.patches'", "Give the path of the file: --plugin loose/patches.py"),
        ),
        ("x/my.py", ("x/my.py, and there is no such file",)),
        ("my-patches", ("allowed: the name of a module", "Did you mean `my_patches`?")),
        ("", ("--plugin is ''",)),
        ("json", ("registers nothing; it was read from", "--plugin ./json.py")),
    ],
)
def test_a_module_that_is_not_there_or_another_one_is_named(folder, fails, plugin, expected):
    (folder / "loose").mkdir()
    (folder / "loose" / "patches.py").write_text(PATCHES)
    said = fails("cost", "--config", "c.yaml", "--plugin", plugin)
    assert all(words in said for words in expected), said


FAULTS = {
    "import": ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library' (bad.py, line 3)"),
    "error": ("def f():\n    raise RuntimeError('out of\\n luck')\nf()", "RuntimeError: out of luck (bad.py, line 5)"),
    "exit": ("raise SystemExit(3)", "SystemExit: 3"),
    "syntax": ("def", "SyntaxError: invalid syntax (bad.py, line 3)"),
    "built in": (
        "@register_patchifier('fixed')\nclass A(Patchifier):\n    def natural_ends(self, facts, threshold): ...",
        "bad registers the patchifier `fixed`, and that name is built in",
    ),
    "tracker": ("@register_tracker('wandb')\nclass A:\n    start = log = text = close = print", "is built in"),
    "base": ("@register_patchifier('a')\nclass A: ...", "a class derived from patchpad.patching.Patchifier"),
    "wrong base": ("@register_trigger('a')\nclass A(Patchifier): ...", "derived from patchpad.patching.Trigger"),
    "function": ("@register_trigger('a')\ndef a(): ...", "allowed: a class"),
    "abstract": ("@register_trigger('a')\nclass A(Trigger): ...", "which lacks scores"),
    "methods": ("@register_tracker('a')\nclass A:\n    def log(self): ...", "which lacks start, text, close"),
    "name": ("@register_trigger('a b')\nclass A(Trigger):\n    def scores(self, f, o): ...", "as 'a b'; allowed:"),
    "yaml": ("@register_trigger('null')\nclass A(Trigger):\n    def scores(self, f, o): ...", "as 'null'"),
    "twice": (
        "@register_trigger('a')\nclass A(Trigger):\n    def scores(self, f, o): ...\n"
        "@register_trigger('a')\nclass B(Trigger):\n    def scores(self, f, o): ...",
        "the trigger `a` is registered twice: by bad as A, and by bad as B",
    ),
    "options": (
        "@register_trigger('a')\nclass A(Trigger):\n    class Options: ...\n    def scores(self, f, o): ...",
        "A.Options is <class 'bad.A.Options'>; allowed: a dataclass",
    ),
    "no default": (
        "import dataclasses as d\n@register_trigger('a')\nclass A(Trigger):\n    @d.dataclass\n    class Options:\n"
        "        x: int\n    def scores(self, f, o): ...",
        "A.Options.x has no default",
    ),
    "type": (
        "import dataclasses as d\n@register_trigger('a')\nclass A(Trigger):\n    @d.dataclass\n    class Options:\n"
        "        x: complex = 1j\n    def scores(self, f, o): ...",
        "A.Options.x has the type <class 'complex'>; allowed: int, float",
    ),
    "nats": (
        "@register_patchifier('a')\nclass A(Patchifier):\n    threshold_in_nats = True\n"
        "    def natural_ends(self, facts, threshold): ...",
        "allowed: a class derived from patchpad.patching.ScoringPatchifier",
    ),
    "task": ("@register_task_kind('a', dict)\ndef run(*a): ...", "a dataclass derived from patchpad.tasks.definition"),
    "file": ("register_task('a', 'missing.yaml')", "missing.yaml; allowed: a YAML file that is there"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_plugin_that_does_wrong_is_an_error_of_its_own_words_and_nothing_of_it_stays(folder, fails, fault):
    text, expected = FAULTS[fault]
    good = "\n@register_trigger('good')\nclass Good(Trigger):\n    def scores(self, facts, open_bytes): ...\n"
    write(folder, "bad.py", text if fault in ("import", "syntax", "error") else good + text)
    assert expected in fails("cost", "--config", "c.yaml", "--plugin", "bad")
    assert "good" not in TRIGGERS
    write(folder, "bad.py", good + "# mended, and longer")
    patchpad.plugins.load("bad")
    assert "good" in TRIGGERS


def test_the_traceback_is_shown_for_debug_alone(folder, capsysbinary):
    write(folder, "bad.py", "import no_such_library")
    assert main(["cost", "--config", "c.yaml", "--plugin", "bad", "--debug"]) == 2
    assert 'bad.py", line 3, in <module>' in capsysbinary.readouterr().err.decode()


def test_two_plugins_that_use_one_name_are_both_named(folder, fails):
    (folder / "other.py").write_text(PATCHES)
    said = fails("cost", "--config", "c.yaml", "--plugin", "my_patches", "--plugin", "other.py")
    assert "the patchifier `marks` is registered twice: by my_patches as MarksPatchifier, and by other.py as" in said


def test_a_file_here_never_hides_an_installed_module_and_a_folder_is_no_module(folder):
    (folder / "colorsys.py").write_text("raise RuntimeError('imported')")
    (folder / "no_library").mkdir()
    patchpad.plugins.load("my_patches")
    import colorsys

    assert colorsys.rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0)
    with pytest.raises(ImportError):
        import no_library  # noqa: F401  # pyrefly: ignore


def test_a_file_with_the_name_of_an_installed_module_is_loaded_by_its_path(folder):
    (folder / "json.py").write_text(PATCHES)
    patchpad.plugins.load("./json.py")
    assert PatchifierConfig(kind="marks").plugin == "json.py"
    assert json.loads("1") == 1


def test_modules_beside_a_plugin_can_be_imported(folder):
    (folder / "deep").mkdir()
    (folder / "deep" / "parts.py").write_text("NAME = 'late'\n")
    write(
        folder / "deep",
        "whole.py",
        "import parts\n@register_trigger(parts.NAME)\nclass A(Trigger):\n    def scores(self, f, o): ...",
    )
    patchpad.plugins.load("deep/whole.py")
    assert "late" in TRIGGERS


def test_a_name_near_that_of_a_plugin_is_suggested_and_other_kinds_are_listed(folder):
    patchpad.plugins.load("my_patches")
    with pytest.raises(ConfigError, match=r"allowed: fixed, spacebyte, entropy, hnet, tokens, marks, rises") as caught:
        PatchifierConfig(kind="mark")
    assert "Did you mean `marks`?" in caught.value.hint


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"mark": "."}, "model.patchifier.options: unknown key `mark`"),
        ({"marks": 3}, "model.patchifier.options: `marks` is 3; allowed: text"),
        ({"powers": [1, "a"]}, "`powers` is [1, 'a']; allowed: a list of integers"),
    ],
)
def test_options_are_checked_like_every_other_key(folder, options, expected):
    patchpad.plugins.load("my_patches")
    with pytest.raises(ConfigError) as caught:
        PatchifierConfig(kind="marks", options=options)
    assert expected in caught.value.message


def test_options_are_kept_with_their_defaults_and_come_back(folder):
    patchpad.plugins.load("my_patches")
    config = load_config("c.yaml", {"model.patchifier.options.marks": "'?'"})
    values = config.to_dict()["model"]["patchifier"]
    assert values["options"] == {"marks": "?", "powers": [1, 2]}
    assert values["plugin"] == "my_patches"
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_results_compare_names_and_options_and_not_how_a_plugin_was_loaded(folder):
    found = []
    for plugin in ("my_patches", "my_patches.py"):
        with nothing_loaded():
            patchpad.plugins.load(plugin)
            config = load_config("c.yaml")
            found.append((config.to_dict(), learned_from(config), model_facts(build_model(config.model))["config"]))
    (first, learned, facts), (second, learned_again, facts_again) = found
    assert first["model"]["patchifier"]["plugin"] != second["model"]["patchifier"]["plugin"]
    assert learned == learned_again
    assert facts == facts_again
    assert facts["patchifier"]["options"] == {"marks": ". ", "powers": [1, 2]}


def test_a_name_that_is_now_of_another_plugin_is_said(folder, caplog):
    patchpad.plugins.load("my_patches")
    with caplog.at_level(logging.WARNING, logger="patchpad"):
        for same in ("my_patches", "my_patches.py", "package.my_patches"):
            TriggerConfig(kind="capitals", plugin=same)
        assert not caplog.text
        TriggerConfig(kind="capitals", plugin="theirs")
    assert "a trigger of the plug-in theirs when this was saved, and is now one of my_patches" in caplog.text


def test_a_kind_without_options_takes_none_and_builtin_kinds_leave_no_trace_of_plugins(folder):
    with pytest.raises(ConfigError, match=r"model.trigger.options is {'x': 1} with the trigger `stride`; allowed: {}"):
        TriggerConfig(kind="stride", options={"x": 1})
    assert TriggerConfig(kind="stride", plugin="forgotten").plugin is None
    values = Config().to_dict()
    sections = [values["train"], values["model"]["patchifier"], values["model"]["trigger"]]
    assert {"options", "plugin", "tracker_plugins"}.isdisjoint(key for section in sections for key in section)


@pytest.mark.parametrize("plugin", ["", "a\nb", "../x", "x" * 300])
def test_a_recorded_plugin_that_cannot_be_one_is_refused(folder, plugin):
    with pytest.raises(ConfigError, match=r"model.trigger.plugin is .*; allowed: the name of a module"):
        TriggerConfig(kind="unknown", plugin=plugin)


@pytest.mark.parametrize("patchifier", ["marks", "rises"])
def test_a_checkpoint_without_its_plugin_names_it_and_imports_nothing(folder, fails, capsysbinary, patchifier):
    (folder / "c.yaml").write_text(config_text(patchifier))
    capsysbinary.readouterr()
    train("run", "--plugin", "my_patches")
    assert b"Next: patchpad calibrate --plugin my_patches run --data PATH" in capsysbinary.readouterr().out
    (folder / "loaded.txt").unlink()
    with nothing_loaded():
        with pytest.raises(MissingPluginError) as caught:
            load("run")
        assert caught.value.plugin == "my_patches"
        assert f"'{patchifier}', a patchifier of the plug-in 'my_patches', which is not loaded" in caught.value.message
        assert "patchpad.plugins.load('my_patches')" in caught.value.hint
        for words in (
            ("generate", "run", "--prompt", "It's", "--max-new-bytes", "3"),
            ("train", "--resume", "run"),
            ("cost", "--config", "run/config.json"),
            ("train", "--init-from", "run", "--data", "text.txt", "--out", "new"),
        ):
            said = fails(*words)
            assert "which is not loaded" in said
        assert not (folder / "loaded.txt").exists()
        assert "my_patches" not in sys.modules
        command = fails("generate", "run", "--prompt", "It's", "--max-new-bytes", "3").rpartition("load it: ")[2]
        assert command == """patchpad generate --plugin my_patches run --prompt 'It'"'"'s' --max-new-bytes 3"""
        assert main(shlex.split(command)[1:]) == 0
        assert (folder / "loaded.txt").exists()


STUDY = """
name: mine
bytes_seen: 100
data: {text: {paths: [text.txt]}}
base: {config: run/config.json}
arms:
  - name: mine
  - name: other
    model: {patchifier: {kind: spacebyte}}
"""


def test_a_study_starts_from_a_run_with_its_plugin_and_an_arm_may_have_another_patchifier(folder):
    patchpad.plugins.load("my_patches")
    (folder / "run").mkdir()
    (folder / "run" / "config.json").write_text(json.dumps(load_config("c.yaml").to_dict()))
    (folder / "study.yaml").write_text(STUDY)
    mine, other = (run.config.model.patchifier for run in load_study("study.yaml").runs)
    assert (mine.kind, mine.options["marks"]) == ("marks", ". ")
    assert (other.kind, other.options) == ("spacebyte", {})
    with nothing_loaded(), pytest.raises(MissingPluginError, match=r"arm `mine`: .*of the plug-in 'my_patches'"):
        load_study("study.yaml")


def test_an_exported_folder_without_its_plugin_names_it(folder):
    patchpad.plugins.load("my_patches")
    values = {"model_type": MODEL_TYPE, "patchpad": json.loads(json.dumps(load_config("c.yaml").to_dict()))}
    assert described(values, "DIR/config.json").config.model.patchifier.kind == "marks"
    with nothing_loaded(), pytest.raises(MissingPluginError, match="of the plug-in 'my_patches', which is not loaded"):
        described(values, "DIR/config.json")


def test_a_run_goes_on_with_its_plugin_and_its_own_options(folder, capsysbinary):
    train("run", "--plugin", "my_patches", "--model.patchifier.options.marks", "'.'", "--train.checkpoint_every", "2")
    (folder / "run" / "manifest.json").unlink()  # as if it had been stopped before its end
    for late in (folder / "run" / "checkpoints").glob("step-3"):
        late.rename(folder / "late")
    with nothing_loaded():
        assert main(["train", "--resume", "run", "--plugin", "my_patches.py", "--quiet"]) == 0
        model = load("run")
        assert model.config.patchifier.options["marks"] == "."
        assert model.config.patchifier.plugin == "my_patches.py"


def test_a_model_loads_without_the_tracker_of_its_training_which_going_on_asks_for(folder, fails):
    write(folder, "tell.py", "@register_tracker('tell')\nclass T:\n    start = log = text = close = lambda *a: None\n")
    (folder / "c.yaml").write_text(config_text("fixed", "entropy", train=", trackers: [tell]"))
    train("run", "--plugin", "tell", "--train.checkpoint_every", "2")
    (folder / "run" / "manifest.json").unlink()
    with nothing_loaded():
        assert load("run").config.patchifier.kind == "fixed"
        said = fails("train", "--resume", "run")
        assert "`train.trackers` is 'tell', a tracker of the plug-in 'tell', which is not loaded" in said
        assert "patchpad train --plugin tell --resume run" in said
        with pytest.raises(ConfigError, match="trackers names 'tell'; allowed: tensorboard, wandb, trackio"):
            TrainConfig(trackers=("tell",))


def test_another_patchifier_than_that_of_the_model_started_from_does_not_take_over_its_options(folder):
    train("run", "--plugin", "my_patches")
    train("new", "--init-from", "run", "--model.patchifier.kind", "spacebyte")
    assert load("new").config.patchifier.options == {}
    train("same", "--init-from", "run")
    assert load("same").config.patchifier.options == {"marks": ". ", "powers": [1, 2]}


@pytest.mark.parametrize("name", PATCHIFIERS.built_in)
def test_what_a_configuration_says_of_a_patchifier_is_what_its_class_says(name):
    config = PatchifierConfig(kind=name, num_token_ids=300 if name == "tokens" else None)
    found = PATCHIFIERS.get(name)
    assert (config.threshold_in_nats, config.reads_entropy) == (found.threshold_in_nats, found.reads_entropy)


@pytest.mark.parametrize("name", TRIGGERS.built_in)
def test_what_a_configuration_says_of_a_trigger_is_what_its_class_says(name):
    config, found = TriggerConfig(kind=name), TRIGGERS.get(name)
    assert (config.threshold_in_nats, config.reads_entropy) == (found.threshold_in_nats, found.reads_entropy)


def test_facts_of_plugins_decide_the_parts_the_threshold_and_the_dial_of_a_model(folder, fails):
    patchpad.plugins.load("my_patches")
    config = load_config("c.yaml").model
    assert config.reads_entropy
    assert build_model(config).takes_threshold_in_nats
    plain = replace(config, trigger=TriggerConfig(kind="capitals"))
    model = build_model(plain)
    assert not plain.reads_entropy
    assert "entropy_head" not in plain.parts
    assert float(model.scratchpad_threshold_nats) == 0.5
    with pytest.raises(GenerationError, match="allowed with: entropy, entropy_jump, ending_entropy, impatient"):
        threshold_from_dials(model, None, 0.5)
    rises = replace(plain, patchifier=PatchifierConfig(kind="rises"))
    assert rises.cuts_by_entropy
    assert rises.reads_entropy
    assert "patch_threshold_nats" in build_model(rises).state_dict()
    (folder / "c.yaml").write_text(config_text(trigger="capitals"))
    said = fails("cost", "--config", "c.yaml")
    assert "scratchpads_per_byte depends on the text for the trigger `capitals` with `marks` patches" in said


def package(folder, name, module):
    """Installs a package in a folder of the search path."""
    facts = folder / f"{name}-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[patchpad.plugins]\n{name} = {module}\n")


def test_installed_plugins_are_imported_when_a_name_asks_for_them_and_a_broken_one_does_no_harm(
    folder, monkeypatch, caplog
):
    site = folder / "site"
    package(site, "good", "good_patches")
    package(site, "broken", "broken_patches")
    (site / "good_patches.py").write_text(PATCHES)
    (site / "broken_patches.py").write_text("raise RuntimeError('broken by an update')")
    monkeypatch.syspath_prepend(str(site))
    assert installed() == {"broken_patches": "broken", "good_patches": "good"}
    load_config(None, {"model.patchifier.kind": "spacebyte"})
    assert not {"good_patches", "broken_patches"} & set(sys.modules)
    with caplog.at_level(logging.WARNING, logger="patchpad"):
        assert load_config("c.yaml").model.patchifier.plugin == "good_patches"
    assert (
        caplog.text.count("broken_patches of the installed package broken cannot be loaded (RuntimeError: broken") == 1
    )
    assert (folder / "loaded.txt").read_text() == "x"
    assert TRACKERS.knows("no_such") is False


def test_a_plain_import_is_enough_and_a_class_may_be_defined_again(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    import importlib

    import my_patches  # pyrefly: ignore

    assert PatchifierConfig(kind="marks").plugin == "my_patches"
    importlib.reload(my_patches)  # as a cell of a notebook is run again
    assert ModelConfig(trigger=TriggerConfig(kind="capitals")).trigger.plugin == "my_patches"
    with pytest.raises(PluginError, match="registered twice"):
        patchpad.plugins.register_trigger("capitals")(my_patches.ImpatientTrigger)


def test_help_with_a_plugin_lists_its_names(folder, capsysbinary):
    assert main(["train", "--help", "--plugin", "my_patches"]) == 0
    assert "One of fixed, spacebyte, entropy, hnet, tokens, marks, rises." in " ".join(
        capsysbinary.readouterr().out.decode().split()
    )


@pytest.mark.slow
@pytest.mark.distributed
def test_each_rank_loads_the_plugin_and_one_says_what_is_wrong_with_it(folder):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "JAXTYPING_DISABLE": "1"}

    def ranks(*words):
        call = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "patchpad", "train"]
        return subprocess.run([*call, *words], capture_output=True, text=True, env=environment, check=False)

    options = ("--config", "c.yaml", "--data", "text.txt", "--out", "run")
    done = ranks(*options, "--plugin", "my_patches")
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "run" / "config.json").read_text())["model"]["patchifier"]["plugin"] == "my_patches"
    failed = ranks(*options, "--plugin", "my_patchs")
    assert failed.returncode != 0
    assert failed.stderr.count("there is no module 'my_patchs'") == 1


def test_an_error_in_a_rule_names_the_plug_in_and_the_line(folder, fails, monkeypatch):
    write(
        folder,
        "broken.py",
        """@register_patchifier("broken")
class Broken(Patchifier):
    def natural_ends(self, facts, threshold):
        return facts.is_byte & facts.nothing_like_it
""",
    )
    words = ["train", "--config", "c.yaml", "--data", "text.txt", "--out", "run", "--quiet", "--plugin", "broken"]
    told = fails(*words, "--plugin", "my_patches", "--model.patchifier.kind", "broken", code=1)
    assert told.startswith("patchpad: the plug-in broken failed: AttributeError: 'ByteFacts' object has no attribute")
    assert "(broken.py, line 6)" in told
    monkeypatch.setattr("patchpad.plugins.load", lambda *words: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # an error of our own stays one
        main(words)
