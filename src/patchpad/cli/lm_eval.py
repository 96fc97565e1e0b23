"""`patchpad lm-eval`."""

from typing import Annotated

from cyclopts import Parameter


def lm_eval(
    *words: Annotated[str, Parameter(name="WORDS", allow_leading_hyphen=True, help="Options of lm_eval.")],
) -> None:
    """Run EleutherAI's lm_eval (the extra `eval`): its own command line, with `patchpad` among its models.

    patchpad lm-eval --model RUN --tasks lambada_openai,piqa --limit 50 scores a run. Without --model, the small model
    that ships with patchpad is used. --model_args takes more settings of the model: scratchpad_threshold (nats),
    compute (trunk calls per byte), seed, max_gen_toks (bytes).

    patchpad lm-eval run --help lists the other options. patchpad lm-eval ls tasks lists the tasks.
    """
    from patchpad.tasks.lm_eval_adapter import run_command_line

    run_command_line(words)
