"""Compiled steps that files keep for other processes."""

import json
import os
import subprocess
import sys

import pytest
import torch

from patchpad.inference import kept_steps
from patchpad.inference.kept_steps import KeptKernel, decisions_of, key_of
from patchpad.inference.kernels import PLAIN
from patchpad.inference.patch_stepper import PatchStepper
from patchpad.patching.triggers import EntropyTrigger, build_trigger
from patchpad.testing import sharp_model, tiny_model_config

OPTIONS = {"backend": "inductor", "options": {"cpp_wrapper": True}}

GENERATE = """
import json, logging, sys
from io import StringIO
import torch
from patchpad import generate
from patchpad.testing import sharp_model, tiny_model_config
torch.set_num_threads(1)
log = StringIO()
logging.basicConfig(stream=log, level=logging.INFO)
config = json.loads(sys.argv[1])
model = sharp_model(tiny_model_config("fixed", config.pop("trigger"), **config))
options = {"max_new_bytes": 60, "seed": 3, "draft": "off"}
texts = [generate(model, ["The rain "], compile=compiled, **options) for compiled in (True, False)]
from torch._dynamo.utils import counters
print(json.dumps({"texts": texts, "traced": counters["stats"]["unique_graphs"], "log": log.getvalue()}))
"""


def facts(rows: int = 1, trigger: str = "entropy", **options):
    model = sharp_model(tiny_model_config("fixed", trigger, **options))
    _, state = PatchStepper(model).prefill([b"rain"] * rows, torch.zeros(rows))
    return model, state, [torch.arange(rows)]


def key(model, state, inputs, kernel=PLAIN.predict):
    return key_of(kernel, model, state, inputs, OPTIONS)


@pytest.mark.slow
@pytest.mark.compile
@pytest.mark.unchecked
def test_a_second_process_takes_steps_from_files_and_a_damaged_file_is_made_anew(tmp_path):
    def run(**config) -> dict:
        call = [sys.executable, "-c", GENERATE, json.dumps({"trigger": "entropy"} | config)]
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "JAXTYPING_DISABLE": "1"}
        done = subprocess.run(call, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["texts"][0] == found["texts"][1]
        return found

    first = run()
    files = sorted((tmp_path / kept_steps.FOLDER).iterdir())
    assert [file.name.split("-")[0] for file in files] == ["predict", "read", "refresh"]
    assert first["traced"] == 3
    second = run()
    assert second["texts"] == first["texts"]
    assert second["traced"] == 0
    content = files[0].read_bytes()
    files[0].write_bytes(content[:-9])
    third = run()
    assert third["texts"] == first["texts"]
    assert third["traced"] == 1
    assert f"{files[0]} is damaged; the phase is compiled again" in third["log"]
    assert run()["traced"] == 0
    assert run(byte_heads=4)["traced"] == 3


def test_the_key_is_the_same_for_the_same_model_whatever_its_weights():
    model, state, inputs = facts()
    with torch.no_grad():
        model.local_decoder.lm_head.weight.mul_(2)
    assert key(model, state, inputs) == key(*facts())
    assert key(model, state, inputs) != key(model, state, inputs, PLAIN.read)


@pytest.mark.parametrize(
    "options", [{"rows": 2}, {"trigger": "stride"}, {"byte_heads": 4}, {"trunk_layers": 3}, {"window_bytes": 9}]
)
def test_other_models_and_other_numbers_of_rows_have_other_keys(options):
    assert key(*facts()) != key(*facts(**options))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("patchpad.inference.kept_steps.__version__", "0.0.0"),
        ("torch.__version__", "2.99.0"),
        ("patchpad.inference.kept_steps.processor_facts", lambda: ("another",)),
        ("patchpad.inference.kept_steps.sources_digest", lambda: "changed"),
        ("torch.get_num_threads", lambda: 77),
        ("torch.get_float32_matmul_precision", lambda: "medium"),
    ],
)
def test_other_versions_processors_and_settings_have_other_keys(name, value, monkeypatch):
    given = facts()
    before = key(*given)
    monkeypatch.setattr(name, value)
    assert key(*given) != before


def test_a_setting_of_the_compiler_changes_the_key():
    given = facts()
    before = key(*given)
    with torch._inductor.config.patch("cpp.simdlen", 256):
        assert key(*given) != before


def test_types_of_weights_and_values_that_code_takes_in_change_the_key():
    model, state, inputs = facts()
    before = key(model, state, inputs)
    model.local_decoder.lm_head.half()
    assert key(model, state, inputs) != before
    model, state, inputs = facts()
    linear = next(module for module in model.modules() if isinstance(module, torch.nn.Linear))
    vars(linear)["scale"] = 0.5
    assert key(model, state, inputs) != before


def test_code_of_plug_ins_and_hooks_is_not_kept():
    class OwnTrigger(EntropyTrigger):
        pass

    model, state, inputs = facts()
    own = object.__new__(OwnTrigger)
    vars(own).update(vars(model.trigger))
    model.trigger = own
    assert key(model, state, inputs) is None
    model, state, inputs = facts()
    model.local_decoder.lm_head.register_forward_hook(lambda *_: None)
    assert key(model, state, inputs) is None


def test_nothing_is_kept_where_torch_cannot_load_steps(monkeypatch, tmp_path):
    def kept():
        model, state, inputs = facts()
        return kept_steps.kept_kernel(PLAIN.predict, model, state, inputs, mark_sizes=lambda *_: None, **OPTIONS)

    monkeypatch.setenv(kept_steps.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(kept_steps, "_compiled", lambda *_: b"steps")
    monkeypatch.setattr(kept_steps, "_loaded", lambda content, *_: content)
    assert kept().loaded == b"steps"
    monkeypatch.delattr(torch.compiler, "load_compiled_function", raising=False)
    assert kept() is None


def test_a_kept_step_is_left_when_the_trigger_changes_or_the_guards_refuse():
    class Loaded:
        fits = True

        def guard_check(self, *_) -> bool:
            return self.fits

    model, state, inputs = facts()
    kernel = KeptKernel(Loaded(), decisions_of(model))
    assert kernel.fits(model, state, *inputs)
    kernel.loaded.fits = False
    assert not kernel.fits(model, state, *inputs)
    kernel.loaded.fits = True
    model.trigger = build_trigger(tiny_model_config("fixed", "random").trigger)
    assert not kernel.fits(model, state, *inputs)
