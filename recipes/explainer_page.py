"""Writes docs/explainer.html: what patches, patch lag and scratchpads are, with a figure to try and measured curves.

Usage: python recipes/explainer_page.py [--measure]
The figure comes from the shipped model, anew each time. The curves come from the newest result file,
docs/results/DATE-explainer.json, which --measure makes (ten minutes on a core).
"""

import argparse
import base64
import hashlib
import json
import math
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Any

import torch
from explainer_curves import curves
from explainer_drawings import FULL_NATS, Totals, columns, sight, strip
from explainer_measuring import PATCH_SIZES, measure
from explainer_texts import ReadText, Slots, read_text

import patchpad
from patchpad.config import ModelConfig, PatchifierConfig, TriggerConfig
from patchpad.cost import cost
from patchpad.data.bundled_text import bundled_excerpt
from patchpad.files import strict_json, write_atomically
from patchpad.model.language_model import LanguageModel
from patchpad.pages.page_style import PAGE_CSS
from patchpad.provenance import provenance

ROOT = Path(__file__).resolve().parent.parent
PAGE, RESULTS, PARTS = ROOT / "docs" / "explainer.html", ROOT / "docs" / "results", ROOT / "recipes" / "explainer"
TEXTS = {
    "A sentence": "You pierce my soul. I am half agony, half hope. Tell me not that I am too late,",
    "Python": "class TestCase(unittest.TestCase):\n    def setUp(self):\n        self.client = Client()\n",
    "Random digits": 'ETag: "5f3c9a71e8b04d26"\nContent-Length: 4096\n',
}
STRIP_BYTES, STRIP_SIZE = 24, 8
"""Of the first text, for the drawings, which have to fit a narrow screen."""
COMMAND = "python recipes/explainer_page.py --measure"
INVITATION = "Point at a byte, or move to the text and press an arrow key."


def figure_data(model: LanguageModel, texts: dict[str, str] | None = None) -> dict[str, Any]:
    """Returns what the page's script reads.

    Args:
        model: with fixed patches of at least the largest of `PATCH_SIZES`, and the entropy trigger.
        texts: by name; None for `TEXTS`.
    """
    size = model.config.patchifier.target_patch_size
    read = [
        read_text(model, name, text, [one for one in PATCH_SIZES if one <= size])
        for name, text in (texts or TEXTS).items()
    ]
    return {
        "patchSize": size,
        "threshold": float(model.scratchpad_threshold_nats),
        "entryBytes": round(_costs(model.config, 1.0, 0.0).trunk_cache_bytes_per_byte),
        "fullNats": FULL_NATS,
        "invitation": INVITATION,
        "texts": [one.to_dict() for one in read],
    }


def render(data: dict[str, Any], measured: dict[str, Any], config: ModelConfig, result_name: str) -> str:
    """Returns the page.

    Args:
        data: of `figure_data`.
        measured: of `explainer_measuring.measure`, with its provenance.
        config: of the model.
        result_name: of the file that holds `measured`.
    """
    texts = [ReadText.from_dict(one) for one in data["texts"]]
    first, size, threshold = texts[0], data["patchSize"], data["threshold"]
    slots = Slots.of(first.entropy_nats, size, threshold)
    script = (PARTS / "page.js").read_text(encoding="utf-8")
    values = {
        "digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        "style": PAGE_CSS + (PARTS / "page.css").read_text(encoding="utf-8"),
        "script": script,
        "data": strict_json(data),
        "invitation": INVITATION,
        "columns": columns(first, slots, size),
        "patch_size": size,
        "stored_nats": f"{threshold:.2f}",
        "most_nats": f"{math.log(257):.2f}",
        "result_name": result_name,
        "provenance": _made(measured["provenance"]),
        "text_radios": _radios("text", {str(place): one.name for place, one in enumerate(texts)}, "0"),
        "size_radios": _radios("size", {key: key for key in data["texts"][0]["millibits"]}, str(size)),
        **asdict(Totals.of(first, slots, size, data["entryBytes"])),
        **_drawings(first, threshold),
        **_cost_values(config),
        **_things_to_see(texts, size, threshold),
        **curves(measured),
        "reach": _reach(config),
        "books_saved": f"{100 * bundled_excerpt().set_saved:.1f} %",
        "books_bytes": f"{bundled_excerpt().set_bytes:,}",
    }
    return Template((PARTS / "page.html").read_text(encoding="utf-8")).substitute(values)


def _drawings(text: ReadText, threshold: float) -> dict[str, Any]:
    shown, entropies = text.text[:STRIP_BYTES], text.entropy_nats[: STRIP_BYTES + 1]
    by_byte, plain = (Slots.of(entropies, size, math.inf) for size in (1, STRIP_SIZE))
    fresh = Slots.of(entropies, STRIP_SIZE, threshold)
    return {
        "byte_strip": strip(shown, by_byte, 1, title="Each byte has a slot of its own and a lag of 0"),
        "patch_strip": strip(shown, plain, STRIP_SIZE, title="A slot at the end of each patch; lags grow inside it"),
        "pad_strip": strip(shown, fresh, STRIP_SIZE, title="Scratchpads inside the patches bring the lag back to 0"),
        "sight": sight(fresh),
        "num_bytes": STRIP_BYTES,
        "strip_size": STRIP_SIZE,
        "strip_patches": plain.num_patches,
        "strip_calls": fresh.num_patches + int(fresh.scratchpad[1:].sum()),
        "lag_without": f"{plain.mean_lag:.1f}",
        "lag_with": f"{fresh.mean_lag:.1f}",
    }


def _costs(config: ModelConfig, patches_per_byte: float, scratchpads_per_byte: float) -> Any:
    return cost(
        config,
        context_bytes=config.context_bytes,
        patches_per_byte=patches_per_byte,
        scratchpads_per_byte=scratchpads_per_byte,
    )


def _cost_values(config: ModelConfig) -> dict[str, Any]:
    size, rate = config.patchifier.target_patch_size, config.trigger.scratchpads_per_byte
    never = TriggerConfig(kind="never")
    by_byte = replace(config, patchifier=PatchifierConfig(kind="fixed", target_patch_size=1), trigger=never)
    rows = [
        ("one byte per patch", _costs(by_byte, 1.0, 0.0)),
        (f"patches of {size} bytes", _costs(replace(config, trigger=never), 1 / size, 0.0)),
        (f"the same with scratchpads at {rate * 16:.0f} of 16 bytes", _costs(config, 1 / size, rate)),
    ]
    cells = [
        f"<tr><th>{name}</th><td>{one.patches_per_byte + one.scratchpads_per_byte:.4g}</td>"
        f"<td>{one.flops_per_byte / 1e6:.1f} million</td>"
        f"<td>{one.trunk_cache_bytes_per_byte * config.context_bytes / 2**20:.0f} MB</td></tr>\n"
        for name, one in rows
    ]
    num_params = _costs(config, 1 / size, rate).num_params
    return {
        "cost_rows": "".join(cells),
        "context_bytes": f"{config.context_bytes:,}",
        "num_params": f"{num_params / 1e6:.1f} million",
    }


def _reach(config: ModelConfig) -> int:
    """Returns how many bytes back the local layers can see together."""
    encoder = config.encoder_layers * (config.encoder_window - 1)
    return encoder + config.decoder_layers * (config.decoder_window - 1)


def _things_to_see(texts: list[ReadText], size: int, threshold: float) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in (("code", texts[min(1, len(texts) - 1)]), ("noise", texts[-1])):
        pads = Slots.of(text.entropy_nats, size, threshold).num_scratchpads
        saved = 1 - text.bits(size, pads).mean() / text.bits(size, 0).mean()
        values |= {f"{name}_pads": pads, f"{name}_bytes": len(text.text), f"{name}_saved": f"{100 * saved:.0f} %"}
    return values


def _radios(name: str, choices: dict[str, str], chosen: str) -> str:
    return "".join(
        f'<label><input type="radio" name="{name}" value="{value}"'
        f"{' checked' if value == chosen else ''}>{label}</label>"
        for value, label in choices.items()
    )


def _made(facts: dict[str, Any]) -> str:
    return f"{facts['date'][:10]}, torch {facts['torch_version']}, commit {str(facts['commit'])[:7]}"


def newest() -> tuple[str, dict[str, Any]]:
    """Returns name and content of the newest result file."""
    file = max(RESULTS.glob("*-explainer.json"), key=lambda file: file.name)
    return file.name, json.loads(file.read_text(encoding="utf-8"))


def main() -> None:
    """Measures if asked to, and writes the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="measure the curves anew")
    arguments = parser.parse_args()
    model = patchpad.load()
    if arguments.measure:
        measured = measure(model) | {"provenance": provenance([], torch.device("cpu")) | {"command": COMMAND}}
        file = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-explainer.json"
        write_atomically(file, json.dumps(measured, indent=1, ensure_ascii=False) + "\n")
    name, measured = newest()
    write_atomically(PAGE, render(figure_data(model), measured, model.config, name))


if __name__ == "__main__":
    main()
