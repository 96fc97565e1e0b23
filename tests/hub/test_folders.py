"""Exported folders: what lies in them, that transformers loads them, and that `patchpad import` brings them back."""

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import patchpad
from patchpad.calibration_table import ROW_KEYS, Calibration
from patchpad.config import Config, DataConfig, TrainConfig
from patchpad.errors import CheckpointError, GenerationError
from patchpad.hub.exported import DIGESTS, REMOTE_CODE
from patchpad.training import release
from patchpad.training.manifest import sign

pytestmark = pytest.mark.unchecked  # loading a folder is tested with the checks of shapes where lm_eval does it
KINDS = [
    "fixed-entropy",
    "spacebyte-entropy",
    "entropy-entropy",
    "hnet-entropy",
    "tokens-entropy",
    "fixed-random",
    "byte",
    "megabyte",
]
IDS = torch.tensor([[256, *b"It was a text, and no long one."]])


def calibration_of(nats: float) -> Calibration:
    rows = ((math.inf, 0.0), (nats, 0.3), (-math.inf, 0.8))
    return Calibration(
        rows=tuple(
            dict(zip(ROW_KEYS, (value, share, 0.2, 0.2 + share, 2.5, 1000.0), strict=True)) for value, share in rows
        ),
        text_sha256="ab" * 32,
    )


@pytest.fixture(scope="module")
def run_of(outer, tmp_path_factory):
    """A run of a kind, with a threshold, a calibration where there can be one, paths in its configuration, metrics."""

    def make(kind: str) -> Path:
        model = outer(kind).model
        if model.takes_threshold_in_nats:
            model.calibration = calibration_of(float(model.scratchpad_threshold_nats))
        config = Config(
            model=model.config,
            data=DataConfig(paths=("/home/someone/secret.txt",)),
            train=TrainConfig(steps=7, seed=3, learning_rate=1e-4, init_from="/home/someone/run"),
        )
        folder = tmp_path_factory.mktemp("runs") / kind
        release.save(model, config, folder)
        line = {"step": 7, "bytes_seen": 4321, "train/bpb": 2.5, "val/bpb": 2.75}
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        sign(folder)
        model.calibration = None
        return folder

    made = {}
    return lambda kind: made.setdefault(kind, None) or made.__setitem__(kind, make(kind)) or made[kind]


@pytest.fixture(scope="module")
def exported(hub, run_of, tmp_path_factory):
    """An exported folder of a kind; tests that change it copy it."""
    made = {}

    def get(kind: str = "fixed-entropy") -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("exported") / "model"
            hub.export(run_of(kind), made[kind])
        return made[kind]

    return get


def loaded(hub, folder: Path, **options):
    return hub.transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, **options)


def assert_same_model(found, expected) -> None:
    for (name, value), (other, own) in zip(found.state_dict().items(), expected.state_dict().items(), strict=True):
        assert name == other
        assert value.dtype == own.dtype
        assert torch.equal(value, own), name
    assert (found.calibration is None) == (expected.calibration is None)
    if expected.calibration is not None:
        assert found.calibration.to_dict() == expected.calibration.to_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_folder_gives_our_outputs_and_comes_back_as_it_was(hub, run_of, exported, tmp_path, kind):
    own = patchpad.load(run_of(kind))
    model = loaded(hub, exported(kind))
    assert model.model.config == own.config
    assert_same_model(model.model, own)
    for (name, value), (_, other) in zip(model.model.named_buffers(), own.named_buffers(), strict=True):
        assert torch.equal(value, other) or bool(value.isnan()), name  # those too that are not saved
    with torch.no_grad():
        expected = own(IDS).logits
        assert float((model(IDS).logits[..., :257] - expected).abs().max()) <= 1e-5 * float(expected.abs().max())

    back = hub.import_folder(exported(kind), tmp_path / "back")
    assert not back.has_stale_calibration
    assert_same_model(patchpad.load(tmp_path / "back"), own)
    released = release.release(run_of(kind), tmp_path / "released")
    assert_same_model(patchpad.load(tmp_path / "back"), released)
    configs = [patchpad.training.checkpoint.open_checkpoint(tmp_path / name).config for name in ("back", "released")]
    assert configs[0] == configs[1]
    assert configs[0].train == replace(
        patchpad.training.checkpoint.open_checkpoint(run_of(kind)).config.train, init_from=None
    )


def test_a_folder_has_the_files_that_its_readers_look_for_and_no_path_of_this_machine(exported, run_of):
    folder = exported()
    names = {file.name for file in folder.iterdir()}
    assert names >= {"config.json", "generation_config.json", "model.safetensors", "tokenizer_config.json", "README.md"}
    assert names >= {*REMOTE_CODE, DIGESTS}
    for file in folder.glob("*.json"):
        assert "someone" not in file.read_text()
    config = json.loads((folder / "config.json").read_text())
    assert config["max_position_embeddings"] == 96
    assert config["vocab_size"] == 258
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (256, 256, 257)
    for name in REMOTE_CODE:
        assert len((folder / name).read_text().splitlines()) < 15
    if os.name != "nt":
        assert (folder / "model.safetensors").stat().st_mode == (folder / "README.md").stat().st_mode


def test_the_card_tells_what_was_measured_and_on_what(exported):
    card = (exported() / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "2.7500 bits per byte after 7 steps (4,321 bytes seen)" in card
    assert "on 1,000 bytes of text (SHA-256 `abab" in card
    assert "| inf | 2.5000 | 0.2000 | 0.0000 | 0.2000 |" in card
    assert "`compute=` it is chosen by trunk calls per byte, 0.200 to 1" in card
    assert 'pip install "patchpad[hub]"' in card
    plain = (exported("megabyte") / "README.md").read_text()
    assert "its compute per byte is fixed" in plain
    assert "By `patchpad calibrate`" not in plain


def test_a_card_of_the_run_goes_into_the_folder_with_lower_headings(hub, run_of, tmp_path):
    shutil.copytree(run_of("megabyte"), tmp_path / "run")
    (tmp_path / "run" / "CARD.md").write_text("# Mine\n\n```sh\n# as it is\n```\n\n## Texts\n")
    hub.export(tmp_path / "run", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "## The card of the run\n\n### Mine\n\n```sh\n# as it is\n```\n\n#### Texts\n" in card


def test_compute_of_a_loaded_model_is_that_of_its_calibration(hub, exported, run_of, caplog):
    model, own = loaded(hub, exported()), patchpad.load(run_of("fixed-entropy"))
    inputs = hub.tokenizer("It was", return_tensors="pt")
    found = model.generate(**inputs, max_new_tokens=20, compute=0.4)
    expected = patchpad.complete(own, "It was", max_new_bytes=20, temperature=0, compute=0.4)
    assert hub.tokenizer.decode_bytes(found[0, 7:].tolist()) == expected.data
    model.generation_config.compute = 0.4
    assert torch.equal(model.generate(**inputs, max_new_tokens=20), found)
    assert caplog.text == ""
    with torch.no_grad():
        next(model.model.parameters()).add_(0.1)
    twin = hub.of(model.model)
    twin._calibrated_sha256 = model._calibrated_sha256
    twin.generate(**inputs, max_new_tokens=2, compute=0.4)
    assert "weights are not those that the calibration was measured with" in caplog.text


def test_what_was_trained_and_saved_by_transformers_is_imported_without_its_calibration(hub, exported, tmp_path):
    model = loaded(hub, exported()).train()
    model(IDS, labels=IDS).loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    model.model.store_threshold(2.25)
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "parts", max_shard_size="50KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 2
    for name in ("whole", "parts"):
        found = hub.import_folder(tmp_path / name, tmp_path / f"run-{name}")
        assert found.has_stale_calibration
        again = patchpad.load(tmp_path / f"run-{name}")
        assert again.calibration is None
        assert float(again.scratchpad_threshold_nats) == 2.25
        for own, value in model.model.state_dict().items():
            assert torch.equal(value, again.state_dict()[own]), own
    with_table = loaded(hub, exported())
    with_table.save_pretrained(tmp_path / "untouched")
    assert hub.import_folder(tmp_path / "untouched", tmp_path / "run").model.calibration is not None


def test_half_precision_keeps_thresholds_and_generates(hub, exported, run_of, tmp_path):
    model = loaded(hub, exported("entropy-entropy"), dtype=torch.bfloat16)
    own = patchpad.load(run_of("entropy-entropy"))
    assert next(model.parameters()).dtype == torch.bfloat16
    for name in ("scratchpad_threshold_nats", "patch_threshold_nats"):
        assert torch.equal(getattr(model.model, name), getattr(own, name))
    assert model.model.trunk.stack.rotary.frequencies.dtype == torch.float32
    inputs = hub.tokenizer(["It was", ""], return_tensors="pt", padding=True)
    assert model.generate(**inputs, max_new_tokens=5).shape == (2, inputs["input_ids"].shape[1] + 5)


DAMAGE = {
    "differs from patchpad_files.json": lambda folder: flip(folder / "model.safetensors"),
    "config.json was altered": lambda folder: flip(folder / "config.json"),
    "is missing": lambda folder: (folder / "model.safetensors").unlink(),
    "has no config.json": lambda folder: (folder / "config.json").unlink(),
    "Pickled weights are not read": lambda folder: (
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        (folder / DIGESTS).unlink(),
    ),
    "is not of a patchpad model": lambda folder: change(folder, model_type="llama"),
    "is of another version of patchpad": lambda folder: change(folder, patchpad={"model": {"new_key": 1}}),
    "do not fit its config.json": lambda folder: change(folder, patchpad={"model": {}}),
    "key `calibration` is not a calibration table": lambda folder: change(folder, calibration={"rows": [{}]}),
}


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def change(folder: Path, **values: object) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, **values}))
    (folder / DIGESTS).unlink()


@pytest.mark.parametrize("message", DAMAGE)
def test_a_damaged_folder_is_not_imported_and_nothing_is_left(hub, exported, tmp_path, message):
    shutil.copytree(exported(), tmp_path / "copy")
    DAMAGE[message](tmp_path / "copy")
    with pytest.raises(CheckpointError, match=message) as caught:
        hub.import_folder(tmp_path / "copy", tmp_path / "run")
    assert caught.value.hint
    assert not (tmp_path / "run").exists()


def test_weights_that_do_not_fit_are_not_loaded_by_transformers_either(hub, exported, tmp_path, said):
    from safetensors.torch import load_file, save_file

    shutil.copytree(exported(), tmp_path / "copy")
    tensors = load_file(tmp_path / "copy" / "model.safetensors")
    del tensors["model.trunk.stack.blocks.0.attention_norm.weight"]
    save_file(tensors, tmp_path / "copy" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"missing_keys: model\.trunk\.stack\.blocks\.0\.attention_norm\.weight"):
        loaded(hub, tmp_path / "copy")
    said.clear()  # transformers reports it too


def test_a_model_with_new_weights_is_made_from_a_configuration_and_saved(hub, exported, tmp_path):
    config = hub.transformers.AutoConfig.from_pretrained(exported("hnet-entropy"), trust_remote_code=True)
    model = hub.transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=True)
    fresh = patchpad.ByteLM(model.model.config)
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in model.model.state_dict().items())
    model.save_pretrained(tmp_path / "new")
    assert hub.import_folder(tmp_path / "new", tmp_path / "run").has_stale_calibration


def test_a_folder_that_is_not_empty_is_left_alone(hub, run_of, exported, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(CheckpointError, match="is not an empty folder"):
        hub.export(run_of("fixed-entropy"), tmp_path / "full")
    with pytest.raises(CheckpointError, match="is not an empty folder"):
        hub.import_folder(exported(), tmp_path / "full")
    assert [file.name for file in tmp_path.iterdir()] == ["full"]
    (tmp_path / "empty").mkdir()
    hub.export(run_of("fixed-entropy"), tmp_path / "empty")
    assert (tmp_path / "empty" / "README.md").is_file()


def test_the_working_folder_and_a_link_to_a_folder_are_written_into(hub, run_of, tmp_path, monkeypatch):
    for name in ("here", "real"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path / "here")
    hub.export(run_of("fixed-entropy"), ".")
    hub.export(run_of("fixed-entropy"), tmp_path / "link")
    names = {file.name for file in (tmp_path / "here").iterdir()}
    assert (
        names == {file.name for file in (tmp_path / "real").iterdir()} == {file.name for file in Path.cwd().iterdir()}
    )
    assert "config.json" in names
    assert not any(name.startswith(".") for name in names)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["here", "link", "real"]


def test_what_was_loaded_with_its_remote_code_is_saved_without_a_copy_of_ours(hub, exported, tmp_path, monkeypatch):
    for kind in (hub.Config, hub.Model, hub.Tokenizer):  # as in a process that has not imported them before
        monkeypatch.setattr(kind, "_auto_class", None)
        kind.register_for_auto_class()
    loaded(hub, exported()).save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.glob("*.py")} == set(REMOTE_CODE)
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert auto_map["AutoConfig"] == "configuration_patchpad.PatchpadConfig"


def test_a_write_that_fails_leaves_no_folder(hub, run_of, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("patchpad.hub.exporting.write_atomically", full)
    with pytest.raises(CheckpointError, match="No space left"):
        hub.export(run_of("fixed-entropy"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_bpe_run_is_refused(hub, tmp_path):
    from patchpad.testing import sharp_baseline

    model = sharp_baseline("bpe")
    release.save(model, Config(model=model.config), tmp_path / "run")
    with pytest.raises(GenerationError, match="`bpe` model; allowed for export: models of bytes"):
        hub.export(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def in_a_process(code: str, folder: Path, *, without: str = "") -> subprocess.CompletedProcess:
    """Runs code in a process of its own, with warnings as errors, in which a package may be missing."""
    hide = f"import sys; sys.modules[{without!r}] = None\n" if without else ""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(folder.parent / "modules"),
        "OMP_NUM_THREADS": "1",
        "JAXTYPING_DISABLE": "1",
        "FOLDER": str(folder),
    }
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", hide + code], env=environment, capture_output=True, text=True, check=False
    )


SCRIPT = """
import os
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(os.environ["FOLDER"], trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(os.environ["FOLDER"], trust_remote_code=True)
ids = model.generate(**tokenizer("It was", return_tensors="pt"), max_new_tokens=12)
print(tokenizer.decode_bytes(ids[0].tolist()).hex())
from transformers import pipeline
pipe = pipeline("text-generation", model=os.environ["FOLDER"], trust_remote_code=True)
print(len(pipe("It was", max_new_tokens=3, do_sample=False)[0]["generated_text"]) > 6)
"""


@pytest.mark.slow
def test_a_new_process_that_never_imports_patchpad_itself_loads_a_folder_offline(exported, run_of):
    called = in_a_process(SCRIPT, exported())
    assert called.returncode == 0, called.stderr
    written, fine = called.stdout.split()
    own = patchpad.complete(patchpad.load(run_of("fixed-entropy")), "It was", max_new_bytes=12, temperature=0)
    assert bytes.fromhex(written) == b"It was" + own.data
    assert fine == "True"
    lines = [line for line in called.stderr.splitlines() if line and "Loading weights" not in line]
    assert lines == []


WITHOUT = """
import os, transformers
for name in ("AutoConfig", "AutoTokenizer", "AutoModelForCausalLM"):
    try:
        getattr(transformers, name).from_pretrained(os.environ["FOLDER"], trust_remote_code=True)
    except ImportError as error:
        print(error)
"""


def test_without_patchpad_a_folder_says_how_to_install_it(exported):
    called = in_a_process(WITHOUT, exported(), without="patchpad")
    assert called.returncode == 0, called.stderr
    message = 'this model needs the package `patchpad`. Install it with: pip install "patchpad[hub]"'
    assert called.stdout.splitlines() == [message] * 3


def test_a_folder_without_the_tokens_of_its_source_is_refused(hub, exported, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(exported("tokens-entropy"), folder)
    (folder / "source_tokens.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no source_tokens.json"):
        loaded(hub, folder)
    with pytest.raises(CheckpointError, match=r"source_tokens.json is missing"):
        hub.import_folder(folder, tmp_path / "back")
