"""Bits per byte of other models that a converted model is compared with, such as other patches on the same trunk."""

import json
from pathlib import Path
from typing import Any

from conversion_bits import MAIN_RATE, PLAIN, Pair, Text, our_values, thresholds_of

import patchpad
from patchpad.errors import DataError
from patchpad.tasks.running import model_facts
from patchpad.training.metrics import METRICS


def trained_bytes(run: Path) -> int:
    """Returns the bytes that a run was trained on.

    Raises:
        DataError: its metrics do not say so.
    """
    try:
        lines = (run / METRICS).read_text(encoding="utf-8").splitlines()
        return max(json.loads(line).get("bytes_seen", 0) for line in lines)
    except (OSError, ValueError) as error:
        raise DataError(f"{run / METRICS} says nothing of the training: {error}", hint="Give a trained run.") from error


def measure_arm(pair: Pair, text: Text, name: str, run: Path) -> None:
    """Measures an arm on the windows of a text, each with a threshold of its own.

    The cells are `arms/<name>/facts`, `arms/<name>/plain` and `arms/<name>/<MAIN_RATE>`, and `arms/<name>/calibration`.

    Args:
        pair: its source and record are used.
        text: what is measured.
        name: of the arm.
        run: trained; the context is as long as the converted model's.
    """
    model = patchpad.load(run)
    if model.config.context_bytes != pair.context_bytes:
        raise DataError(
            f"{name} has a context of {model.config.context_bytes:,} bytes; allowed: {pair.context_bytes:,}, that of "
            "the converted model",
            hint="Train the arm with the same context.",
        )
    facts = model_facts(model)
    inputs: dict[str, Any] = {**text.inputs(), "weights_sha256": facts["weights_sha256"]}
    pair.record.cell(f"arms/{name}/facts", inputs, lambda: {**facts, "trained_bytes": trained_bytes(run)})
    arm = Pair(pair.source, model, pair.record, pair.batch_rows)
    measured, _ = text.windows(arm.context_bytes)
    thresholds = thresholds_of(arm, text, name=f"arms/{name}/calibration", inputs=inputs)
    for point in (PLAIN, MAIN_RATE):
        if point in thresholds:
            nats = thresholds[point]
            known = {**inputs, "threshold_nats": nats}
            pair.record.cell(f"arms/{name}/{point}", known, lambda nats=nats: our_values(arm, measured, nats))
