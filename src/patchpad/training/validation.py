"""Bits per byte on the held-out text of a run, as metrics."""

from patchpad.evaluation.bits_per_byte import evaluate
from patchpad.model.language_model import LanguageModel
from patchpad.training.parallel import Parallel
from patchpad.training.text import RunText


def validation_metrics(model: LanguageModel, text: RunText, limit_bytes: int, parallel: Parallel) -> dict[str, float]:
    """Returns bits per byte at the stored threshold: `val/bpb` over all, and `val/SOURCE/bpb` of each of a mixture.

    Args:
        model: being trained.
        text: whose held-out part is read.
        limit_bytes: about how many bytes to use, shared by the sources' weights; 0 for all.
        parallel: this rank and the others, which share the text.

    Raises:
        TrainingError: the model predicts nan or inf.
    """
    points = {
        name: evaluate(model, corpus, limit_bytes=limit, ranks=parallel)[0]
        for name, corpus, limit in text.held_out(limit_bytes)
    }
    parallel.end_evaluation(model)
    num_bytes = sum(point.num_bytes for point in points.values())
    over_all = sum(point.bits_per_byte * (point.num_bytes / num_bytes) for point in points.values())
    return {"val/bpb": over_all} | {f"val/{name}/bpb": point.bits_per_byte for name, point in points.items() if name}
