"""Models of patchpad in EleutherAI's lm_eval, under the name `patchpad`. The only place that imports lm_eval.

Importing this module registers the model, beside those that lm_eval has:

    import lm_eval
    import patchpad.tasks.lm_eval_adapter
    lm_eval.simple_evaluate("patchpad", model_args={"run": "runs/mine"}, tasks=["lambada_openai"])
"""

import logging
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from patchpad.errors import ConfigError, HarnessError, MissingExtraError, PatchpadError, integer_or_none, near_matches
from patchpad.files import without_infinities
from patchpad.inference.engine import BATCH_ROWS
from patchpad.inference.generator import Completion, Generation, threshold_from_dials
from patchpad.inference.sampling import checked_integer
from patchpad.launcher import require_one_process
from patchpad.model.int8 import num_parameters
from patchpad.model.language_model import LanguageModel
from patchpad.model.wrapped import unwrapped
from patchpad.tasks.compute import Compute
from patchpad.tasks.generating import prompt_room
from patchpad.tasks.lm_eval_requests import grouped_by_options, scoring_requests, seeds_of
from patchpad.tasks.scoring import DEFAULT_BATCH_POSITIONS, Request, Scored, Scorer
from patchpad.text import encode_text
from patchpad.training.checkpoint import BUNDLED, load
from patchpad.training.progress import shows_bar
from patchpad.version import __version__

try:
    import lm_eval.models  # noqa: F401  # pyrefly: ignore  # first: a model registered before would hide them all
    from lm_eval._cli import HarnessCLI  # pyrefly: ignore
    from lm_eval.api.model import LM  # pyrefly: ignore
    from lm_eval.api.registry import model_registry, register_model  # pyrefly: ignore
    from lm_eval.config.evaluate_config import EvaluatorConfig  # pyrefly: ignore
    from lm_eval.utils import setup_logging  # pyrefly: ignore
    from tqdm import tqdm  # pyrefly: ignore
except ImportError as error:
    raise MissingExtraError(
        "the library `lm-eval` is not installed", hint='Install it with: pip install "patchpad[eval]"'
    ) from error

logger = logging.getLogger(__name__)

NAME = "patchpad"
ARGUMENTS = ("run", "scratchpad_threshold", "compute", "seed", "max_gen_toks", "batch_size", "device")
DEFAULT_MAX_GEN_BYTES = 1024
"""Most bytes of an answer where a task does not say: about the 256 tokens that lm_eval takes then."""
REQUESTS_AT_ONCE = 1024
"""Requests that are scored between two steps of the progress bar, and of lm_eval's cache."""


@register_model(NAME)
class PatchpadLM(LM):
    """A model of patchpad as lm_eval asks for it. Results depend neither on the batch size nor on the order.

    Text is read as UTF-8. A context that does not fit the model's `context_bytes` is cut on the left, with a warning
    and a count in the result.

    Args:
        model: a loaded model, instead of `run`.
        run: a run, or one of its step folders; None or `bundled` for the small model that ships with patchpad.
        scratchpad_threshold: nats, inf or -inf; None for the stored threshold.
        compute: trunk calls per byte instead, translated by the calibration.
        seed: of sampled answers; None for lm_eval's own seed of torch, the third of `--seed`.
        max_gen_toks: most bytes of an answer, for tasks that do not say.
        batch_size: rows at once, or `auto`.
        max_batch_size: lm_eval passes it; it has no effect.
        device: auto, cpu, cuda, cuda:N or mps; a loaded model stays where it is.
        unknown: anything else is an error.

    Raises:
        ConfigError: an argument that is unknown or out of range, or several processes.
        CheckpointError: no such run.
        GenerationError: both dials at once, or `compute` without a calibration.
    """

    def __init__(
        self,
        model: LanguageModel | None = None,
        *,
        run: str | Path | None = None,
        scratchpad_threshold: int | float | None = None,
        compute: int | float | None = None,
        seed: int | None = None,
        max_gen_toks: int = DEFAULT_MAX_GEN_BYTES,
        batch_size: int | str = "auto",
        max_batch_size: int | None = None,
        device: str | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        require_one_process()
        if unknown:
            name = min(unknown)
            raise ConfigError(f"`{name}` is not an argument of the model `{NAME}`", hint=near_matches(name, ARGUMENTS))
        if model is not None and run is not None:
            raise ConfigError("both a model and a run were given; allowed: one of the two", hint="Leave one out.")
        self.run = None if run is None else str(run)
        self.model = load(run, device=device or "auto") if model is None else unwrapped(model)
        self._device = self.model.device
        self.threshold = threshold_from_dials(self.model, scratchpad_threshold, compute)
        self.seed = seed
        self.max_gen_bytes = checked_integer("max_gen_toks", max_gen_toks, least=1)
        rows = _rows(batch_size)
        self.batch_rows = rows or BATCH_ROWS
        positions = DEFAULT_BATCH_POSITIONS if rows is None else rows * self.model.config.context_bytes
        self.scorer = Scorer(self.model, scratchpad_threshold_nats=self.threshold, batch_positions=positions)
        self.num_cut_requests = 0
        self.num_cut_bytes = 0
        self._num_scored = 0
        self._prompts: list[bytes] = []
        self._completions: list[Completion] = []

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Returns ln p of each continuation given its context, in nats, and whether greedy choice would write it.

        Raises:
            InputError: an empty continuation.
            TrainingError: the model predicts nan or inf.
        """
        results = []
        cut = []
        scores = self._scores(scoring_requests(requests), "Scoring", disable_tqdm)
        for request, scored in zip(requests, scores, strict=True):
            results.append((scored.log_likelihood_nats, scored.is_greedy))
            cut.append(scored.num_cut_bytes)
            self.cache_hook.add_partial("loglikelihood", request.args, results[-1])
        self._count_cuts(cut)
        return results

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Returns ln p of each text in nats, every byte counted once, the end of the document not.

        A text longer than the model's `context_bytes` is read as `patchpad evaluate` reads it, in windows that each
        begin anew.

        Raises:
            TrainingError: the model predicts nan or inf.
        """
        texts = [encode_text(request.args[0]) for request in requests]
        scores = self._scores([Request(b"", text) for text in texts if text], "Reading", disable_tqdm)
        results = []
        for request, text in zip(requests, texts, strict=True):
            results.append(next(scores).log_likelihood_nats if text else 0.0)
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, results[-1])
        return results

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Returns what the model writes after each context, up to the first of its stop strings.

        `max_gen_toks` counts bytes. A prompt is cut on the left to what the answer leaves of the model's context, at
        least half of it. A sampled answer depends on the seed, the task, the document and how often it was asked for
        before, not on the other requests.

        Raises:
            GenerationError: an option of the task that is out of range.
        """
        seeds = seeds_of(requests, torch.initial_seed() if self.seed is None else self.seed)
        contexts = [encode_text(request.args[0]) for request in requests]
        results = [""] * len(requests)
        num_cut_bytes = [0] * len(requests)
        with _bar(len(requests), "Generating", disable_tqdm) as bar:
            for options, indices in grouped_by_options(requests, self.max_gen_bytes):
                room = prompt_room(self.model.config.context_bytes, options["max_new_bytes"])
                prompts = [contexts[index][-room:] for index in indices]
                generation = Generation(
                    self.model,
                    prompts,
                    seed=[seeds[index] for index in indices],
                    scratchpad_threshold_nats=self.threshold,
                    batch_rows=self.batch_rows,
                    draft="off",  # or seconds would decide what lies within rounding
                    **options,
                )
                for new in generation:
                    bar.update(new.is_last)
                completions = generation.completions()
                for index, prompt, completion in zip(indices, prompts, completions, strict=True):
                    num_cut_bytes[index] = len(contexts[index]) - len(prompt)
                    results[index] = completion.text
                    self.cache_hook.add_partial("generate_until", requests[index].args, completion.text)
                self._prompts += prompts
                self._completions += completions
        self._count_cuts(num_cut_bytes)
        return results

    def get_model_info(self) -> dict[str, Any]:
        """Returns what lm_eval adds to its results: the model, and the compute of all that was asked so far."""
        compute = {name: without_infinities(part.to_dict()) for name, part in self.compute().items()}
        return {
            "model_num_parameters": num_parameters(self.model),
            NAME: {
                "version": __version__,
                "run": self.run,
                "compute": compute,
                "num_cut_requests": self.num_cut_requests,
                "num_cut_bytes": self.num_cut_bytes,
            },
        }

    def compute(self) -> dict[str, Compute]:
        """Returns the compute of all that was asked so far, by `scoring` and `generation`, if there was any."""
        parts = {}
        if self._num_scored:
            parts["scoring"] = self.scorer.compute()
        if self._completions:
            parts["generation"] = Compute.of_completions(self.model, self._prompts, self._completions, self.threshold)
        return parts

    def _scores(self, requests: Sequence[Request], what: str, disable_tqdm: bool) -> Iterator[Scored]:
        with _bar(len(requests), what, disable_tqdm) as bar:
            for begin in range(0, len(requests), REQUESTS_AT_ONCE):
                part = self.scorer.score(requests[begin : begin + REQUESTS_AT_ONCE])
                self._num_scored += len(part)
                bar.update(len(part))
                yield from part

    def _count_cuts(self, num_cut_bytes: Sequence[int]) -> None:
        num_requests, num_bytes = sum(map(bool, num_cut_bytes)), sum(num_cut_bytes)
        self.num_cut_requests += num_requests
        self.num_cut_bytes += num_bytes
        if num_requests:
            logger.warning(
                "%d of %d requests do not fit the model's context of %d bytes: %d bytes were cut off on the left",
                *(num_requests, len(num_cut_bytes), self.model.config.context_bytes, num_bytes),
            )


def _rows(batch_size: Any) -> int | None:
    """Returns lm_eval's batch size as a number of rows; None for `auto`, or `auto:N`.

    Raises:
        ConfigError: it is neither.
    """
    if batch_size is None or str(batch_size).partition(":")[0] == "auto":
        return None
    rows = integer_or_none(int(batch_size) if str(batch_size).isdecimal() else batch_size)
    if rows is None or rows < 1:
        raise ConfigError(f"batch_size is {batch_size!r}; allowed: auto, or an integer of at least 1")
    return rows


def _bar(total: int, what: str, disable_tqdm: bool) -> Any:
    return tqdm(total=total, desc=what, disable=disable_tqdm or not shows_bar())


def run_command_line(words: Sequence[str]) -> None:
    """Runs lm_eval's own command line, in which `--model` may also be a run.

    Where neither the words nor the file of `--config` say so, the model is the one that ships with patchpad, the device
    is chosen, and so is the size of batches.

    Args:
        words: what follows the command.

    Raises:
        ConfigError: a model that is neither a run nor one that lm_eval knows.
        HarnessError: lm_eval has stopped with an error of its own.
        SystemExit: words that lm_eval does not understand, or its help was shown.
    """
    if not logger.isEnabledFor(logging.INFO):  # --quiet
        setup_logging(logging.WARNING)
    else:
        setup_logging()
    harness = HarnessCLI()
    kept, sys.argv = sys.argv, ["lm-eval", *words]  # where lm_eval reads its words
    try:
        arguments = harness.parse_args()
    finally:
        sys.argv = kept
    if arguments.command == "run":
        _complete(arguments)
    try:
        harness.execute(arguments)
    except (PatchpadError, BrokenPipeError):
        raise
    except ConnectionError as error:
        detail = " ".join(str(error).split())
        raise HarnessError(
            f"lm_eval could not load what it needs: {detail}",
            hint="Check the network, and the name of the task's data.",
        ) from error
    except OSError:
        raise
    except Exception as error:  # of its own, of a task's code, of a library of data
        detail = " ".join(f"{type(error).__name__}: {error}".split())
        raise HarnessError(f"lm_eval has stopped: {detail}", hint="--debug shows where.") from error


def _complete(arguments: Namespace) -> None:
    """Puts in what lm_eval's command line and its file of arguments leave open."""
    in_file = {} if arguments.config is None else EvaluatorConfig.load_yaml_config(arguments.config)
    model = arguments.model or in_file.get("model") or NAME
    if model not in model_registry:
        if model != BUNDLED and not Path(model).is_dir():
            raise ConfigError(
                f"--model is {model}; allowed: the folder of a run, `{BUNDLED}`, `{NAME}`, or a model of lm_eval",
                hint=near_matches(model, model_registry),
            )
        arguments.model_args = {"run": model, **(arguments.model_args or in_file.get("model_args") or {})}
        model = NAME
    arguments.model = model
    if model == NAME:
        if "batch_size" not in arguments and "batch_size" not in in_file:
            arguments.batch_size = "auto"
        if arguments.device is None and "device" not in in_file:
            arguments.device = "auto"
