"""Training through transformers: its loss is that of patchpad's trainer, and so is the step that follows from it."""

import copy

import numpy as np
import pytest
import torch

import patchpad
from patchpad.config import Config, TrainConfig
from patchpad.data import Batch, Corpus, TrainingBatches
from patchpad.model.block import Block
from patchpad.registry import PATCHIFIERS
from patchpad.testing import random_documents
from patchpad.training.passes import PassWeights, training_pass
from patchpad.training.steps import TrainingSteps
from patchpad.training.sums import StepSums

NAMES = [*(f"{patchifier}-entropy" for patchifier in PATCHIFIERS), "fixed-stride", "byte", "megabyte"]
KINDS = [pytest.param(kind, marks=[] if kind == "hnet-entropy" else pytest.mark.unchecked) for kind in NAMES]
DOCUMENTS = random_documents(9, [150, 20, 30, 41, 7, 230, 12, 25, 33])
RELATIVE = 2e-6
"""Allowed difference of two fp32 losses or gradients that are summed in another order."""
LEARNING_RATE = 1e-3
LEAST_GRADIENT = 1e-5
"""Below it, AdamW's first step is the sign of what may be rounding."""


def batches_of(config: Config) -> TrainingBatches:
    """Packed rows of windows, as a run trains on them: some end inside a document, some are short."""
    return TrainingBatches(corpus(), context_bytes=config.model.context_bytes, batch_rows=3, seed=1)


def as_theirs(batch) -> dict[str, torch.Tensor]:
    """Our rows as transformers has them: one id more, since label n is what position n - 1 predicts."""
    rows = len(batch.byte_ids)
    more = torch.full((rows, 1), 257)
    return {
        "input_ids": torch.cat((batch.byte_ids, more), dim=1),
        "labels": torch.cat((torch.full((rows, 1), -100), batch.targets), dim=1),
    }


def own_loss(model, batch, config: Config):
    weights = PassWeights.of_step(model, [batch], [batch], config.train)
    return training_pass(
        model, batch.byte_ids, batch.targets, model.decisions(batch=len(batch.byte_ids)), weights, None
    ).loss


def gradients(model) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        largest = max(1e-3, float(value.abs().max()))
        assert float((found[name] - value).abs().max()) <= 20 * RELATIVE * largest, name


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_of_packed_rows_are_those_of_training(outer, hub, kind):
    model = hub.of(copy.deepcopy(outer(kind).model), z_loss_weight=1e-3, entropy_head_weight=0.3).train()
    config = Config(model=model.model.config, train=TrainConfig(z_loss_weight=1e-3, entropy_head_weight=0.3))
    batch = batches_of(config).batch(0)
    assert bool((batch.byte_ids == 256)[:, 1:].any())
    assert bool((batch.byte_ids == 257).any())
    expected = own_loss(model.model, batch, config)
    expected.backward()
    own = gradients(model.model)
    model.zero_grad()
    output = model(**as_theirs(batch))
    assert float(output.loss.detach()) == pytest.approx(float(expected.detach()), rel=RELATIVE)
    assert output.cache is None
    output.loss.backward()
    assert_same(gradients(model.model), own)


def is_of_byte(targets: torch.Tensor) -> torch.Tensor:
    return (targets >= 0) & (targets < 256)


def test_a_last_id_from_which_nothing_is_predicted_does_not_count(outer, hub):
    """Rows of a collator hold the last target as an id, which H-Net's ratio loss must not see."""
    model = hub.of(copy.deepcopy(outer("hnet-entropy").model))
    config = Config(model=model.model.config)
    batches = map(batches_of(config).batch, range(9))
    batch = next(batch for batch in batches if bool(is_of_byte(batch.targets[:, -1]).any()))
    theirs = as_theirs(batch)
    last = batch.targets[:, -1]
    theirs["input_ids"][:, -1] = torch.where(last == -100, 257, last)
    with torch.no_grad():
        expected = float(own_loss(model.model, batch, config))
        assert float(model(**theirs).loss) == pytest.approx(expected, rel=RELATIVE)


def test_rows_of_their_collator_have_the_loss_of_our_documents(outer, hub):
    model = outer("fixed-entropy")
    documents = [document for document in DOCUMENTS if len(document) <= model.model.config.context_bytes][:3]
    tokenizer = hub.Tokenizer(add_eos_token=True, padding_side="right")
    collate = hub.transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)
    theirs = collate([{"input_ids": tokenizer.encode_bytes(document)} for document in documents])
    assert len(set(map(len, documents))) == 3
    width = max(map(len, documents)) + 1
    ids = torch.tensor([[256, *document, *[257] * (width - 1 - len(document))] for document in documents])
    targets = torch.tensor([[*document, 256, *[-100] * (width - 1 - len(document))] for document in documents])
    with torch.no_grad():
        expected = own_loss(model.model, Batch.of(ids, targets), Config(model=model.model.config))
        assert float(model(**theirs).loss) == pytest.approx(float(expected), rel=RELATIVE)


def test_padding_on_the_left_has_no_part_in_the_loss(outer):
    model = outer("fixed-entropy")
    ids = torch.tensor([[256, *DOCUMENTS[3]]])
    padded = torch.cat((torch.full((1, 5), 257), ids), dim=1)
    with torch.no_grad():
        alone = model(ids, labels=ids).loss
        labels = torch.where(padded == 257, -100, padded)
        assert float(model(padded, labels=labels).loss) == pytest.approx(float(alone), rel=RELATIVE)
        nothing = model(ids, labels=torch.full_like(ids, -100)).loss
    assert float(nothing) == 0


def corpus() -> Corpus:
    texts = tuple(np.frombuffer(document, dtype=np.uint8) for document in DOCUMENTS)
    return Corpus(texts, tuple(map(str, range(len(texts)))))


def config_of_step(model, **values) -> Config:
    """A run whose first step has the peak learning rate, decays no weights, and decides at the model's thresholds."""
    threshold = float(model.scratchpad_threshold_nats) if model.takes_threshold_in_nats else None
    cuts = model.config.cuts_by_entropy
    if threshold is not None:
        values["scratchpads_per_byte"] = None
    train = TrainConfig(
        learning_rate=LEARNING_RATE,
        warmup_steps=0,
        weight_decay=0.0,
        batch_rows=3,
        seed=1,
        device="cpu",
        scratchpad_threshold_nats=threshold,
        patch_threshold_nats=float(model.patch_threshold_nats) if cuts else None,
        **values,
    )
    return Config(model=model.config, train=train)


def step_of_ours(start, config: Config) -> tuple[float, dict[str, torch.Tensor], dict[str, torch.Tensor], list]:
    """Loss, weights and clipped gradients of a first step of patchpad's trainer, and its batches."""
    steps = TrainingSteps(config, corpus())
    steps.model.load_state_dict(start.state_dict())
    steps.model.patch_threshold.copy_(start.patch_threshold)  # of `hnet`: not saved, and 0.5 but in tests
    steps.schedule.is_fresh.fill_(False)  # the model is trained already
    losses, plain = [], steps.passes.run

    def run(*arguments):
        result = plain(*arguments)
        losses.append(float(result.loss.detach()))
        return result

    steps.passes.run = run
    batches = [steps.batches.batch(number) for number in range(config.train.accumulation_steps)]
    steps.train_step(StepSums())
    weights = {name: value.detach() for name, value in steps.model.named_parameters()}
    return sum(losses), weights, gradients(steps.model), batches


def rows_of(batches) -> list[dict[str, torch.Tensor]]:
    """Rows of transformers of one width."""
    theirs = [as_theirs(batch) for batch in batches]
    width = max(part["input_ids"].shape[1] for part in theirs)
    fills = {"input_ids": 257, "labels": -100}

    def wide(part, name):
        rows = part[name]
        return torch.nn.functional.pad(rows, (0, width - rows.shape[1]), value=fills[name])

    return [{name: wide(part, name)[row] for name in fills} for part in theirs for row in range(len(part["input_ids"]))]


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("kind", "passes", "recomputes"),
    [("fixed-entropy", 1, False), ("fixed-entropy", 2, True), ("hnet-entropy", 1, False), ("megabyte", 1, False)],
)
def test_a_step_of_their_trainer_is_a_step_of_ours(outer, hub, tmp_path, kind, passes, recomputes):
    start = outer(kind).model
    config = config_of_step(start, accumulation_steps=passes)
    loss, weights, grads, batches = step_of_ours(start, config)
    model = hub.of(copy.deepcopy(start))
    arguments = hub.transformers.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=1,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        adam_beta1=config.train.beta1,
        adam_beta2=config.train.beta2,
        weight_decay=0.0,
        max_grad_norm=config.train.max_grad_norm,
        per_device_train_batch_size=3,
        gradient_accumulation_steps=passes,
        activation_checkpointing=recomputes,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    result = hub.transformers.Trainer(model=model, args=arguments, train_dataset=rows_of(batches)).train()
    assert model.gradient_checkpointing == recomputes
    assert result.training_loss == pytest.approx(loss, rel=RELATIVE)
    num_compared = num_weights = 0
    for name, value in model.model.named_parameters():
        counts = grads[name].abs() > LEAST_GRADIENT if name in grads else torch.ones_like(value, dtype=torch.bool)
        assert float((value.detach() - weights[name])[counts].abs().max()) <= LEARNING_RATE / 100, name
        num_compared += int(counts.sum())
        num_weights += value.numel()
    assert num_compared > num_weights / 3  # of the others are n-grams that no text has
    changed = [not torch.equal(weights[name], value) for name, value in start.named_parameters()]
    assert all(changed)


@pytest.mark.unchecked
def test_recomputing_changes_no_gradient_and_runs_the_trunk_twice(outer, hub, monkeypatch):
    model = hub.of(copy.deepcopy(outer("fixed-entropy").model)).train()
    batch = as_theirs(batches_of(Config(model=model.model.config)).batch(0))
    calls, plain = [], Block.forward
    monkeypatch.setattr(Block, "forward", lambda self, *rest: calls.append(self) or plain(self, *rest))
    found = []
    for recomputes in (False, True, False):
        if recomputes:
            with pytest.warns(FutureWarning, match="activation_checkpointing_enable"):  # the name of old
                model.gradient_checkpointing_enable()
        else:
            model.activation_checkpointing_disable()
        assert model.is_activation_checkpointing == recomputes
        calls.clear()
        model.zero_grad()
        model(**batch).loss.backward()
        found.append({name: value.clone() for name, value in gradients(model).items()})
        assert calls.count(model.model.trunk.stack.blocks[0]) == 1 + recomputes
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name
        assert torch.equal(value, found[2][name]), name


@pytest.mark.unchecked
def test_their_trainer_evaluates_and_saves_what_it_trained(outer, hub, tmp_path):
    model = hub.of(copy.deepcopy(outer("entropy-entropy").model))
    rows = rows_of([batches_of(Config(model=model.model.config)).batch(0)])
    arguments = hub.transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=2, use_cpu=True, report_to="none", save_steps=2, disable_tqdm=True
    )
    trainer = hub.transformers.Trainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before
    again = hub.Model.from_pretrained(tmp_path / "checkpoint-2")
    for (name, value), (other, saved) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(value, saved), name
    assert (tmp_path / "checkpoint-2" / "optimizer.pt").is_file()  # a pickle, which is left alone
    hub.import_folder(tmp_path / "checkpoint-2", tmp_path / "run")
    own = patchpad.load(tmp_path / "run").state_dict()
    assert all(torch.equal(value, own[name]) for name, value in model.model.state_dict().items())
