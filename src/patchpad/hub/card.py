"""The model card of an exported folder: how it is used, what it is, and what was measured. Torch-free."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from patchpad.calibration_table import Calibration
from patchpad.config import Config
from patchpad.cost import count_parameters
from patchpad.pages.markdown import markdown_table
from patchpad.version import __version__

KINDS = {
    "patch": "patches of bytes with scratchpads",
    "byte": "a plain Transformer over bytes (baseline)",
    "megabyte": "MegaByte (baseline)",
}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a card tells."""

    name: str
    config: Config
    calibration: Calibration | None
    scratchpad_threshold_nats: float
    """The stored one."""
    metrics: Sequence[Mapping[str, Any]]
    """Lines of the run's metrics; none for a released model."""
    own_card: str | None
    """What the run's own card says, if there is one."""


def model_card(facts: Facts) -> str:
    """Returns the content of `README.md`, Markdown with the header that the Hugging Face hub reads."""
    parts = [_HEADER, f"# {facts.name}\n", _WHAT, "## Use\n", _USE, _dial(facts), "## The model\n", _model_table(facts)]
    parts += ["## What was measured\n", _measured(facts)]
    if facts.own_card is not None:
        parts += ["## The card of the run\n", _demoted(facts.own_card)]
    parts += ["## Licence and limits\n", _LIMITS]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


_HEADER = """---
library_name: transformers
pipeline_tag: text-generation
tags:
- patchpad
- byte-level
- tokenizer-free
---
"""
_WHAT = f"""A language model over bytes, made with patchpad {__version__}. Its ids are the 256 bytes, the separator 256
(beginning and end of a document) and padding 257."""
_USE = """```sh
pip install "patchpad[hub]"
```

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER", trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER", trust_remote_code=True)
ids = model.generate(**tokenizer("The ", return_tensors="pt"), max_new_tokens=100)
print(tokenizer.decode(ids[0], skip_special_tokens=True))
```

The Python files of this folder only import the classes from the package `patchpad`.
`patchpad import THIS_FOLDER --out RUN` makes a run of it again, for the commands of patchpad."""
_LIMITS = """This card was written by `patchpad export`. It does not know under which licence the weights may be
shared, nor what text they were trained on, beyond what stands above. Whoever shares the folder adds both here."""


def _dial(facts: Facts) -> str:
    """Says how the compute is set."""
    if facts.config.model.kind != "patch":
        return "This model has no scratchpads: its compute per byte is fixed."
    text = "`generate` and `forward` take `scratchpad_threshold_nats=` (nats; `inf`: no scratchpads; `-inf`: one at\n"
    text += "every byte). Without it the stored threshold is used."
    if facts.calibration is None:
        return text
    least, most = facts.calibration.least_compute, facts.calibration.most_compute
    return text + f" With `compute=` it is chosen by trunk calls per byte, {least:.3f} to {most:.4g}."


def _model_table(facts: Facts) -> str:
    model, train = facts.config.model, facts.config.train
    rows = [("kind", KINDS.get(model.kind, model.kind)), ("parameters", f"{sum(count_parameters(model).values()):,}")]
    if model.kind in ("patch", "megabyte"):
        rows.append(("patches", f"`{model.patchifier.kind}`, target {model.patchifier.target_patch_size} bytes"))
    if model.kind == "patch":
        rows.append(("trigger of scratchpads", f"`{model.trigger.kind}`"))
        rows.append(("stored threshold", _nats(facts.scratchpad_threshold_nats)))
    rows.append(("trunk", f"{model.trunk_layers} layers, {model.trunk_dim} wide"))
    rows.append(("context", f"{model.context_bytes:,} bytes"))
    rows.append(("training", f"{train.steps:,} steps planned, {train.batch_rows} rows each, seed {train.seed}"))
    return markdown_table(("", ""), rows)


def _measured(facts: Facts) -> str:
    """Returns the table of the calibration, and the last validation of training."""
    parts = []
    validations = [line for line in facts.metrics if line.get("val/bpb") is not None]
    if validations:
        last = validations[-1]
        parts.append(
            f"In training, on held-out text of the run: {float(last['val/bpb']):.4f} bits per byte after "
            f"{int(last['step']):,} steps ({int(last['bytes_seen']):,} bytes seen)."
        )
    if facts.calibration is not None:
        rows = facts.calibration.rows
        parts.append(
            f"By `patchpad calibrate`, on {int(rows[0]['num_bytes']):,} bytes of text (SHA-256 "
            f"`{facts.calibration.text_sha256}`), each threshold:"
        )
        parts.append(_calibration_table(facts.calibration))
    if not parts:
        parts.append("Nothing: the run has neither a calibration table nor metrics of its training.")
    return "\n\n".join(parts)


def _calibration_table(calibration: Calibration) -> str:
    headings = ("threshold", "bits per byte", "trunk calls per byte", "scratchpads per byte", "patches per byte")
    keys = ("bits_per_byte", "trunk_calls_per_byte", "scratchpads_per_byte", "patches_per_byte")
    rows = [(_nats(row["scratchpad_threshold_nats"]), *(f"{row[key]:.4f}" for key in keys)) for row in calibration.rows]
    return markdown_table(headings, rows)


def _nats(threshold: float) -> str:
    return f"{threshold:.4f} nats" if math.isfinite(threshold) else str(threshold)


def _demoted(card: str) -> str:
    """Returns a card whose headings stand below those of this one; code is left as it is."""
    lines, is_code = [], False
    for line in card.splitlines():
        is_code ^= line.startswith("```")
        lines.append(f"##{line}" if line.startswith("#") and not is_code else line)
    return "\n".join(lines)


__all__ = ["Facts", "model_card"]
