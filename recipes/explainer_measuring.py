"""What the explainer's curves show, measured with the shipped model on text that every user has and it has not seen.

Every setting is one pass over the same windows with the same weights. Only the places of the scratchpads differ. So
what a place in a patch costs can be compared between settings: the bytes at it are the same.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from patchpad.config import PatchifierConfig
from patchpad.data import Corpus, Windows, cut_windows, evaluation_batches, open_corpus
from patchpad.data.bundled_text import bundled_excerpt, bundled_novels
from patchpad.evaluation.breakdown import LEAD_IN_BYTES, Breakdown, byte_class_table
from patchpad.evaluation.calibrate import thresholds_at
from patchpad.model.language_model import LanguageModel
from patchpad.patching import Decisions
from patchpad.patching.patchifiers import FixedPatchifier
from patchpad.patching.triggers import RandomTrigger, StrideTrigger, WhitespaceTrigger

RATES = (1 / 16, 1 / 8, 1 / 4)
"""Scratchpads per byte at which uncertain places are compared with random ones."""
SEEDS = (0, 1, 2)
PATCH_SIZES = (1, 2, 4, 8, 16)
LIMIT_BYTES = 122_880
"""Of a text, in windows spread evenly over it."""
ROWS = 7
"""Windows of a pass."""


def texts() -> dict[str, Corpus]:
    """Returns text that every user has and the shipped model has not seen, by name."""
    excerpt = bundled_excerpt()
    code = sorted(file for file in Path(torch.__file__).parent.glob("nn/**/*.py") if file.stat().st_size)
    return {
        "Persuasion": open_corpus(list(bundled_novels().validation_paths)),
        excerpt.title: excerpt.corpus,
        f"torch.nn {torch.__version__.split('+')[0]}": open_corpus(code),
    }


def measure(model: LanguageModel, corpora: Mapping[str, Corpus] | None = None) -> dict[str, Any]:
    """Runs every setting over every text.

    Args:
        model: with fixed patches and the entropy trigger.
        corpora: text by name; None for `texts`.
    """
    found = corpora or texts()
    return {
        "patch_size": model.patchifier.longest_patch,
        "stored_threshold_nats": float(model.scratchpad_threshold_nats),
        "texts": [{"text": name, **_measure_text(model, corpus)} for name, corpus in found.items()],
        "patch_sizes": measure_patch_sizes(model, next(iter(found.values()))),
    }


def _measure_text(model: LanguageModel, corpus: Corpus) -> dict[str, Any]:
    windows = cut_windows(corpus, model.config.context_bytes).limit(LIMIT_BYTES)
    num_bytes = int(windows.bounds.num_bytes.sum())
    own = model.decisions(math.inf, batch=1)
    never = run(model, windows, own)
    thresholds = thresholds_at(np.concatenate(never.scores), num_bytes, RATES)
    stored = run(model, windows, model.decisions(None, batch=1))
    stored_rate = stored.tally.num_scratchpads / num_bytes

    settings = [
        ("never", never),
        ("stored", stored),
        ("always", run(model, windows, model.decisions(-math.inf, batch=1))),
    ]
    rows = [{"places": name, **row(found)} for name, found in settings]
    for threshold in thresholds.values():
        rows.append({"places": "uncertain", **row(run(model, windows, model.decisions(threshold, batch=1)))})
    for rate in (stored_rate, *thresholds):
        for seed in SEEDS:
            at = RandomTrigger.threshold_at(rate, model.patchifier.longest_patch)
            found = row(run(model, windows, _with(own, RandomTrigger(seed), at)))
            facts = {"seed": seed, "rate": rate, "is_stored_rate": rate == stored_rate}
            rows.append({"places": "random", **facts, **found})
    for name, trigger in (("every 4 bytes", StrideTrigger(4)), ("ends of words", WhitespaceTrigger())):
        rows.append({"places": name, **row(run(model, windows, _with(own, trigger, 0.5)))})
    without_trunk = run(model, windows, own, without_trunk=True)
    rows.append({"places": "trunk not read", **row(without_trunk)})
    return {"num_bytes": num_bytes, "num_windows": len(windows), "lead_in_bytes": never.lead_in_bytes, "settings": rows}


def measure_patch_sizes(model: LanguageModel, corpus: Corpus) -> list[dict[str, Any]]:
    """Measures the same weights with shorter patches than they were trained with; for longer ones there are none."""
    windows = cut_windows(corpus, model.config.context_bytes).limit(LIMIT_BYTES)
    rows = []
    for size in (one for one in PATCH_SIZES if one <= model.patchifier.longest_patch):
        patchifier = FixedPatchifier(PatchifierConfig(kind="fixed", target_patch_size=size))
        for places, threshold in (("never", math.inf), ("stored", None)):
            decisions = replace(model.decisions(threshold, batch=1), patchifier=patchifier)
            rows.append({"patch_size": size, "places": places, **row(run(model, windows, decisions))})
    return rows


def _with(decisions: Decisions, trigger: Any, threshold: float) -> Decisions:
    return replace(decisions, trigger=trigger, scratchpad_threshold=torch.tensor(threshold))


def run(model: LanguageModel, windows: Windows, decisions: Decisions, *, without_trunk: bool = False) -> Breakdown:
    """Runs one setting over windows."""
    found = Breakdown(min(LEAD_IN_BYTES, model.config.context_bytes // 8))
    classes = torch.from_numpy(byte_class_table())
    predict = model.predict_targets_without_trunk if without_trunk else model.predict_targets
    for batch in evaluation_batches(windows, row_positions=model.config.context_bytes + 1, batch_rows=ROWS):
        with torch.no_grad():
            found.add(model, batch, predict(batch.byte_ids, batch.targets, decisions), classes)
    return found


def row(found: Breakdown) -> dict[str, Any]:
    """Returns what is kept of a setting."""
    tally, tables = found.tally, found.to_dict()
    return {
        "bits_per_byte": tally.nats / (math.log(2) * tally.num_bytes),
        "scratchpads_per_byte": tally.num_scratchpads / tally.num_bytes,
        "trunk_calls_per_byte": (tally.num_commits + tally.num_scratchpads) / tally.num_bytes,
        "mean_patch_lag": tables["mean_patch_lag"],
        "by_place": [entry["bits_per_byte"] for entry in tables["bits_per_byte_by_position"]],
        "by_lag": [
            [entry["patch_lag"], entry["bits_per_byte"], entry["num_bytes"]]
            for entry in tables["bits_per_byte_by_patch_lag"]
        ],
    }
