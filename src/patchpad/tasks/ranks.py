"""How models rank in each language, and what their ranks go with. NumPy alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from patchpad.errors import DataError
from patchpad.tasks.result import TaskResult

KIND = "parallel"
GROUPS = {True: "trained", False: "unseen", None: "all"}


@dataclass(frozen=True, kw_only=True)
class LanguageRanks:
    """Bits per byte of several models in the same languages, and their ranks.

    A model's rank in a language is its place among the models, 1 for the fewest bits per byte; equal models share the
    mean of their places.
    """

    task: str
    models: tuple[str, ...]
    languages: tuple[str, ...]
    bits_per_byte: np.ndarray
    """[model, language] of float64."""
    bits_to_reference: np.ndarray
    """Bits of a sentence over those of the same sentence in the reference language, [model, language] of float64."""
    trunk_calls_per_sentence: np.ndarray
    """What a language costs, [model, language] of float64."""
    non_latin_share: np.ndarray
    """Share of the letters of the sentences that are not Latin, [language] of float64."""
    is_trained: tuple[bool | None, ...]
    """Whether a language was among those that the models were trained on; None where the task does not say."""

    @cached_property
    def ranks(self) -> np.ndarray:
        """Rank of each model in each language, [model, language] of float64."""
        return np.stack([average_ranks(column) for column in self.bits_per_byte.T], axis=1)

    @cached_property
    def above_best(self) -> np.ndarray:
        """Percent more bits than the best model of each language, [model, language] of float64."""
        return 100 * (self.bits_per_byte / self.bits_per_byte.min(axis=0) - 1)

    @property
    def groups(self) -> dict[str, np.ndarray]:
        """Indices of the languages of each group that has any: `all`, `trained`, `unseen`."""
        found = {"all": np.arange(len(self.languages))}
        for kind in (True, False):
            indices = np.array([i for i, known in enumerate(self.is_trained) if known is kind], dtype=np.int64)
            if len(indices):
                found[GROUPS[kind]] = indices
        return found

    def summary(self, group: str = "all") -> list[dict[str, Any]]:
        """Returns a row for each model: means over the languages of a group, each language counting once."""
        chosen = self.groups[group]
        ranks = self.ranks[:, chosen]
        return [
            {
                "model": model,
                "num_languages": len(chosen),
                "mean_rank": float(ranks[row].mean()),
                "bits_per_byte": float(self.bits_per_byte[row, chosen].mean()),
                "bits_to_reference": float(self.bits_to_reference[row, chosen].mean()),
                "trunk_calls_per_sentence": float(self.trunk_calls_per_sentence[row, chosen].mean()),
                "first_in": int((ranks[row] == ranks.min(axis=0)).sum()),
                "last_in": int((ranks[row] == ranks.max(axis=0)).sum()),
                "rank_with_non_latin_share": spearman(ranks[row], self.non_latin_share[chosen]),
            }
            for row, model in enumerate(self.models)
        ]

    def agreement(self, group: str = "all") -> np.ndarray:
        """Spearman's correlation of each two models' bits per byte over a group's languages, [model, model].

        1: both find the same languages easy and the same hard. nan where it is not defined.
        """
        chosen = self.bits_per_byte[:, self.groups[group]]
        found = np.full((len(self.models),) * 2, np.nan)
        for a, one in enumerate(chosen):
            for b, other in enumerate(chosen):
                value = spearman(one, other)
                found[a, b] = np.nan if value is None else value
        return found

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for strict JSON; what is not defined is null."""
        return {
            "task": self.task,
            "models": list(self.models),
            "languages": [
                {
                    "language": language,
                    "trained": self.is_trained[column],
                    "non_latin_share": float(self.non_latin_share[column]),
                    "bits_per_byte": self.bits_per_byte[:, column].tolist(),
                    "rank": self.ranks[:, column].tolist(),
                }
                for column, language in enumerate(self.languages)
            ],
            "summary": {group: self.summary(group) for group in self.groups},
            "agreement": {
                group: [[None if np.isnan(value) else float(value) for value in row] for row in self.agreement(group)]
                for group in self.groups
            },
        }


def language_ranks(tables: Mapping[str, Sequence[Mapping[str, Any]]], *, task: str = "languages") -> LanguageRanks:
    """Compares models over the languages of one task.

    Args:
        tables: model -> its table by language, `details["languages"]` of the result of a task of kind `parallel`.
        task: its name.

    Raises:
        DataError: fewer than one model, or models that were not measured on the same text.
    """
    if not tables:
        raise DataError("no results of a task of languages", hint="Give the result of at least one model.")
    by_model = {model: {row["language"]: row for row in table} for model, table in tables.items()}
    first_model, first = next(iter(by_model.items()))
    for model, rows in by_model.items():
        _require_equal_text(task, (first_model, first), (model, rows))
    languages = tuple(sorted(first))
    rows = [first[language] for language in languages]
    return LanguageRanks(
        task=task,
        models=tuple(by_model),
        languages=languages,
        **{
            key: np.array([[rows[name][key] for name in languages] for rows in by_model.values()], dtype=np.float64)
            for key in ("bits_per_byte", "bits_to_reference", "trunk_calls_per_sentence")
        },
        non_latin_share=np.array([row["non_latin_share"] for row in rows], dtype=np.float64),
        is_trained=tuple(row.get("trained") for row in rows),
    )


def ranks_by_task(results: Mapping[str, Sequence[TaskResult]]) -> dict[str, LanguageRanks]:
    """Returns task -> ranks, for the tasks of kind `parallel` that several models have a result of.

    Args:
        results: model -> its results. Of several results of a task, at different thresholds, the last one counts.

    Raises:
        DataError: models that were not measured on the same text.
    """
    tables: dict[str, dict[str, Sequence[Mapping[str, Any]]]] = {}
    for model, several in results.items():
        for result in several:
            if result.kind == KIND:
                tables.setdefault(result.task, {})[model] = result.details["languages"]
    return {task: language_ranks(found, task=task) for task, found in tables.items() if len(found) > 1}


def _require_equal_text(
    task: str, one: tuple[str, Mapping[str, Mapping[str, Any]]], other: tuple[str, Mapping[str, Mapping[str, Any]]]
) -> None:
    """Refuses models whose languages or sentences differ."""
    (name, rows), (other_name, other_rows) = one, other
    different = sorted(rows.keys() ^ other_rows.keys())
    if different:
        raise DataError(
            f"{task}: `{name}` and `{other_name}` were measured in different languages; one lacks "
            f"{', '.join(different[:5])}",
            hint="Evaluate both with the same suite.",
        )
    for language, row in rows.items():
        if row["num_bytes"] != other_rows[language]["num_bytes"]:
            raise DataError(
                f"{task}: `{name}` was measured on {row['num_bytes']:,} bytes of `{language}`, `{other_name}` on "
                f"{other_rows[language]['num_bytes']:,}",
                hint="Evaluate both with the same suite, seed and number of sentences.",
            )


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Returns the rank of each value, 1 for the smallest; equal values share the mean of their ranks, [item]."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[group]


def spearman(one: np.ndarray, other: np.ndarray) -> float | None:
    """Returns Spearman's rank correlation: Pearson's, of the ranks; None where all values of one of them are equal."""
    ranks = [average_ranks(np.asarray(values, dtype=np.float64)) for values in (one, other)]
    centred = [rank - rank.mean() for rank in ranks]
    norms = [float(np.sqrt((values**2).sum())) for values in centred]
    if not all(norms):
        return None
    return float((centred[0] * centred[1]).sum() / (norms[0] * norms[1]))
