"""A run on a mixture: shares, held-out texts of each source, metrics by source, and resuming."""

import json
import random
import signal

import numpy as np
import pytest

from patchpad.config import DataConfig, SourceConfig
from patchpad.data import cut_windows
from patchpad.errors import DataError, TrainingInterrupted
from patchpad.evaluation.bits_per_byte import evaluate
from patchpad.training import trainer
from patchpad.training.text import RunText


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> DataConfig:
    """Two sources: upper-case documents of which a tenth is held out, and lower-case ones with a held-out file."""
    folder, source = tmp_path_factory.mktemp("texts"), random.Random(0)
    for name, letters, count in (("upper", "ABC ", 60), ("lower", "abc ", 30), ("held_out", "abc ", 5)):
        texts = ("".join(source.choices(letters, k=source.randrange(5, 150))) for _ in range(count))
        lines = [json.dumps({"text": text}) for text in texts]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return DataConfig(
        sources={
            "upper": SourceConfig(paths=(str(folder / "upper.jsonl"),), weight=1.0),
            "lower": SourceConfig(
                paths=(str(folder / "lower.jsonl"),), validation_paths=(str(folder / "held_out.jsonl"),), weight=3.0
            ),
        }
    )


def is_lower(ids: np.ndarray) -> bool:
    letters = set(ids.tolist()) - {32, 256, 257}
    assert letters <= set(b"ABC") or letters <= set(b"abc")
    return letters <= set(b"abc")


def test_rows_come_from_the_sources_by_weight_and_metrics_tell_each_of_them(tmp_path, data, tools):
    config = tools.replace(tools.config(steps=8, batch_rows=4, validate_every=4, validation_bytes=200), data=data)
    run = trainer.train(config, out=tmp_path / "run", progress=tools.Hook())
    text = RunText.open(run.config.data)
    batches = trainer.Trainer(run.config, tmp_path / "other", text).batches
    rows = [row for index in range(20) for row in batches.batch(index).byte_ids.numpy()]
    assert sum(map(is_lower, rows)) == pytest.approx(60, abs=2)

    assert {name: len(part.validation.documents) for name, part in text.sources.items()} == {"upper": 6, "lower": 5}
    assert len(text.training.documents) == 54 + 30
    assert len(text.validation.documents) == 6 + 5
    line = tools.losses(tmp_path / "run")[-1]
    points = {}
    for name, limit in (("upper", 50), ("lower", 150)):
        windows = cut_windows(text.sources[name].validation, 64).limit(limit)
        (points[name],) = evaluate(run.model, windows, limit_bytes=0)
        assert line[f"val/{name}/bpb"] == points[name].bits_per_byte
        taken = batches.epochs(8)[name]
        assert line[f"epoch/{name}"] == taken > 0
    bits = sum(point.bits_per_byte * point.num_bytes for point in points.values())
    assert line["val/bpb"] == pytest.approx(bits / sum(point.num_bytes for point in points.values()), rel=1e-12)
    assert "epoch" not in line


@pytest.mark.unchecked
def test_a_resumed_mixture_gives_the_losses_of_an_uninterrupted_one(tmp_path, data, tools):
    config = tools.replace(tools.config(steps=6, batch_rows=3), data=data)
    trainer.train(config, out=tmp_path / "straight", progress=tools.Hook())
    stop = tools.Hook(3, lambda: signal.raise_signal(signal.SIGINT))
    tools.train_until_error(config, stop, TrainingInterrupted, out=tmp_path / "stopped")
    trainer.resume(tmp_path / "stopped", progress=tools.Hook())
    assert tools.losses(tmp_path / "stopped") == tools.losses(tmp_path / "straight")


def test_what_one_source_holds_out_is_trained_on_in_none(data, tmp_path):
    lower = data.sources["lower"]
    again = SourceConfig(paths=(*lower.paths, *lower.validation_paths), validation_fraction=0.01)
    text = RunText.open(DataConfig(sources={"lower": lower, "again": again}))
    held_out = {document.tobytes() for document in text.validation.documents}
    trained_on = [document.tobytes() for document in text.training.documents]
    assert not held_out & set(trained_on)
    assert len(text.sources["again"].training.documents) == 30 - len(text.sources["again"].validation.documents)

    only = SourceConfig(paths=lower.validation_paths)
    with pytest.raises(DataError, match=r"all text of .*held_out\.jsonl is held out"):
        RunText.open(DataConfig(sources={"lower": lower, "only": only}))
