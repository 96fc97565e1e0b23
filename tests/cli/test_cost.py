"""`patchpad cost` for one device and for many."""

import json

import pytest

LARGE = ["cost", "--config", "2b-fixed16-entropy"]
SIZES = ("weights_bytes", "gradients_bytes", "optimizer_bytes", "activations_bytes", "gathered_bytes")


def memory_of(patchpad, *options: str) -> dict:
    return json.loads(patchpad(*LARGE, *options, "--json").out)["training_memory"]


def test_cost_of_many_devices_is_that_of_a_shard(patchpad):
    one = memory_of(patchpad)
    many = memory_of(patchpad, "--devices", "64", "--parallel", "fsdp")
    assert (one["devices"], one["parallel"], one["device_memory_gib"]) == (1, None, 80.0)
    assert (many["devices"], many["parallel"], many["device_rows"]) == (64, "fsdp", 1)
    assert many["weights_bytes"] == pytest.approx(one["weights_bytes"] / 64, rel=1e-6)
    assert one["peak_bytes"] == sum(one[key] for key in SIZES)
    without, checkpointed = many["checkpointing"]
    assert without["peak_bytes"] == many["peak_bytes"] > checkpointed["peak_bytes"]
    assert not without["activation_checkpointing"]
    assert checkpointed["activation_checkpointing"]


def test_cost_says_in_words_what_fits_and_how(patchpad):
    said = " ".join(patchpad(*LARGE, "--devices", "8", "--device-memory-gib", "24").out.split())
    assert "Training on 8 CUDA devices (fsdp), 8 rows of 4,096 bytes at a time, 1 of them on a device." in said
    assert "This fits each of 8 devices of 24 GiB, as configured." in said
    assert "The same rows in fewer passes fit with --train.batch_rows" in said
    said = " ".join(patchpad(*LARGE, "--devices", "16").out.split())
    assert "8 devices have no row of a pass: raise train.batch_rows." in said
    said = " ".join(patchpad(*LARGE, "--device-memory-gib", "40").out.split())
    assert "Too much for one device of 40 GiB, as configured. Not even one row at a time fits;" in said
    assert "of them, with fsdp and one row each, would." in said


def test_cost_of_a_cpu_is_in_fp32_and_of_hsdp_needs_its_ranks(patchpad):
    cpu, cuda = (memory_of(patchpad, "--device", device, "--device-memory-gib", "300") for device in ("cpu", "cuda"))
    assert cpu["fits"]
    assert cpu["activations_bytes"] > 1.3 * cuda["activations_bytes"]
    refused = patchpad(*LARGE, "--devices", "64", "--parallel", "hsdp")
    assert refused.code != 0
    assert "shard_ranks is None for 64 devices" in refused.err


def test_cost_takes_the_configurations_way_of_sharing_and_names_another_that_fits(patchpad, tmp_path):
    path = tmp_path / "large.yaml"
    path.write_text(patchpad("configs", "2b-fixed1-never").out + "  parallel: ddp\n", encoding="utf-8")
    options = ["cost", "--config", str(path), "--devices", "64", "--device-memory-gib", "40"]
    said = " ".join(patchpad(*options).out.split())
    assert "Training on 64 CUDA devices (ddp)" in said
    assert "--train.parallel fsdp" in said
    path.write_text(path.read_text(encoding="utf-8").replace("ddp", "hsdp") + "  shard_ranks: 8\n", encoding="utf-8")
    assert "(hsdp, 8 for a copy)" in patchpad(*options).out
    assert "(fsdp)" in patchpad(*options, "--parallel", "fsdp").out
