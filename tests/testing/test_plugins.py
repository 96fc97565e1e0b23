"""`check_patchifier` and `check_trigger` pass what is built in, and name the fault of each rule that is wrong."""

from dataclasses import dataclass

import pytest
import torch

from patchpad.errors import ConfigError
from patchpad.patching import Patchifier, ScoringPatchifier, Trigger
from patchpad.registry import PATCHIFIERS, TRIGGERS
from patchpad.testing import check_patchifier, check_trigger

pytestmark = pytest.mark.unchecked

SPACE = 32


class Ahead(Patchifier):
    """Looks at the next byte, as a rule that ends a patch before a space might."""

    def natural_ends(self, facts, threshold):
        return facts.is_byte & (facts.byte_ids.roll(-1, dims=-1) == SPACE)


class OfTheWholeRow(Patchifier):
    """Compares with the mean of the row, later bytes included."""

    reads_entropy = True

    def natural_ends(self, facts, threshold):
        return facts.is_byte & (facts.entropy_nats > facts.entropy_nats.mean(dim=-1, keepdim=True))


class State(Patchifier):
    """Counts its calls."""

    def __init__(self, config):
        super().__init__(config)
        self.calls = 0

    def natural_ends(self, facts, threshold):
        self.calls += 1
        return facts.is_byte & (facts.byte_ids % 5 == self.calls % 5)


class StateOfSteps(Patchifier):
    """Counts spaces itself where it sees one byte at a time, and over the row otherwise."""

    spaces = 0

    def natural_ends(self, facts, threshold):
        is_space = facts.byte_ids == SPACE
        if facts.byte_ids.dim() == 2:
            return facts.is_byte & is_space & (is_space.long().cumsum(dim=1) % 2 == 1)
        self.spaces = self.spaces + is_space.long()
        return facts.is_byte & is_space & (self.spaces % 2 == 1)


class Across(Patchifier):
    """Counts spaces over the documents of a row."""

    def natural_ends(self, facts, threshold):
        return facts.is_byte & ((facts.byte_ids == SPACE).long().cumsum(dim=-1) % 3 == 2)


class Rows(Patchifier):
    """Looks at the row above."""

    def natural_ends(self, facts, threshold):
        return facts.is_byte & (facts.byte_ids.roll(1, dims=0) == SPACE)


class Neighbour(Patchifier):
    """Looks two bytes back in the row, which is causal; a step has no row."""

    def natural_ends(self, facts, threshold):
        before = torch.nn.functional.pad(facts.byte_ids, (2, 0), value=0)[..., :-2]
        return facts.is_byte & (before == 97) & (facts.document_offset > 2)


class OneShape(Patchifier):
    """Takes the second axis, which a step does not have."""

    def natural_ends(self, facts, threshold):
        return facts.is_byte & (facts.byte_ids.roll(1, dims=1) == SPACE) & (facts.document_offset > 1)


class Separator(Patchifier):
    """Ends patches at separators too."""

    def natural_ends(self, facts, threshold):
        return facts.byte_ids > 100


class Undeclared(Patchifier):
    """Reads entropies without saying so."""

    def natural_ends(self, facts, threshold):
        return facts.is_byte & (facts.entropy_nats > 1)


class NoSuper(Patchifier):
    """Leaves the base class out."""

    def __init__(self, config):
        pass

    def natural_ends(self, facts, threshold):
        return facts.is_byte


class Endless(Patchifier):
    """Forces no end."""

    def natural_ends(self, facts, threshold):
        return facts.is_byte & (facts.byte_ids == SPACE)

    def patch_ends(self, facts, documents, threshold):
        return self.natural_ends(facts, threshold)


class OtherSteps(Patchifier):
    """Closes patches earlier in steps."""

    def natural_ends(self, facts, threshold):
        return facts.is_byte & (facts.byte_ids == SPACE)

    def step_ends(self, facts, open_bytes, threshold):
        return self.natural_ends(facts, threshold) | (facts.is_byte & (open_bytes > 3))


class Numbers(Patchifier):
    """Returns scores."""

    def natural_ends(self, facts, threshold):
        return facts.byte_ids / 256


FAULTY = {
    Ahead: "Ahead looks ahead: its answer up to byte 4 changes when bytes after 4 change",
    OfTheWholeRow: "OfTheWholeRow looks ahead",
    State: "State keeps state, or draws random numbers",
    StateOfSteps: "StateOfSteps keeps state",
    Across: "Across reads across documents",
    Rows: "Rows reads other rows",
    Neighbour: "Neighbour gives another answer for a byte by itself than in its row",
    OneShape: "OneShape.natural_ends fails for single bytes, as in a step, with IndexError",
    Separator: "Separator ends a patch at a separator or at padding",
    Undeclared: "Set reads_entropy = True",
    NoSuper: r"Call super\(\).__init__\(config\)",
    Endless: "Endless leaves a patch of 40 bytes open, with at most 7",
    OtherSteps: "OtherSteps does not step as it passes",
    Numbers: r"returns \[.*\] of torch.float32 for whole rows; allowed: the shape of the facts",
}


@pytest.mark.parametrize("faulty", FAULTY)
def test_a_faulty_patchifier_is_caught_and_its_fault_named(faulty):
    with pytest.raises(AssertionError, match=FAULTY[faulty]):
        check_patchifier(faulty, examples=1)


def most_slow(names, fast):
    return [pytest.param(name, marks=[] if name in fast else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", most_slow(sorted({*PATCHIFIERS.built_in} - {"hnet", "tokens"}), ("entropy",)))
def test_patchifiers_that_are_built_in_pass(name):
    check_patchifier(name, examples=1)


@pytest.mark.parametrize("name", most_slow(sorted(TRIGGERS.built_in), ("entropy_jump", "stride")))
def test_triggers_that_are_built_in_pass(name):
    check_trigger(name, patchifier="tokens" if name == "ending_entropy" else "spacebyte", examples=1)


class Falls(ScoringPatchifier):
    """The entropy, less than half of that before."""

    @dataclass(frozen=True, kw_only=True)
    class Options:
        """Of the class."""

        share: float = 0.5

    def scores(self, facts):
        return facts.entropy_nats - self.options.share * facts.previous_entropy_nats


def test_a_class_that_is_not_registered_is_checked_with_options_and_leaves_no_name():
    check_patchifier(Falls, options={"share": 0.25}, examples=2, seed=5)
    assert "checked" not in PATCHIFIERS
    with pytest.raises(ConfigError, match="unknown key `shar`"):
        check_patchifier(Falls, options={"shar": 0.25})


class Nan(Trigger):
    """Has no number at the start of a document."""

    def scores(self, facts, open_bytes):
        return facts.document_offset.float().log()


class Integers(Trigger):
    """Returns integers."""

    def scores(self, facts, open_bytes):
        return open_bytes


class SeesAhead(Trigger):
    """Looks at the next byte."""

    def scores(self, facts, open_bytes):
        return (facts.byte_ids.roll(-1, dims=-1) == SPACE).float()


class Draws(Trigger):
    """Draws random numbers."""

    def scores(self, facts, open_bytes):
        return torch.rand(facts.byte_ids.shape)


@pytest.mark.parametrize(
    ("faulty", "expected"),
    [
        (Nan, "Nan.scores returns nan or inf"),
        (Integers, "of torch.int64 for whole rows"),
        (SeesAhead, "SeesAhead looks ahead"),
        (Draws, "Draws keeps state, or draws random numbers"),
    ],
)
def test_a_faulty_trigger_is_caught_and_its_fault_named(faulty, expected):
    with pytest.raises(AssertionError, match=expected):
        check_trigger(faulty, examples=1)


class Branches(Trigger):
    """Asks a tensor for its value."""

    def scores(self, facts, open_bytes):
        return facts.document_offset.float() if bool(facts.is_byte.any()) else open_bytes.float()


class OwnTensors(Trigger):
    """Keeps a tensor on the CPU."""

    def scores(self, facts, open_bytes):
        return torch.tensor([0.5, 1.0])[(facts.byte_ids == SPACE).long()]


class BreaksTheGraph(Trigger):
    """Does what no graph can hold."""

    def scores(self, facts, open_bytes):
        torch._dynamo.graph_break()
        return open_bytes.float()


@pytest.mark.compile
@pytest.mark.parametrize(
    ("faulty", "expected"),
    [
        (Branches, r"Branches.scores fails with .* where its facts are on another device"),
        (OwnTensors, "OwnTensors.scores .* where its facts are on another device"),
        (BreaksTheGraph, r"BreaksTheGraph.scores cannot be compiled as one graph.*no .item\(\)"),
    ],
)
def test_a_rule_that_is_not_ready_for_cuda_is_caught_where_that_is_asked_for(faulty, expected):
    check_trigger(faulty, examples=1)
    with pytest.raises(AssertionError, match=expected):
        check_trigger(faulty, examples=1, compile=True)


@pytest.mark.compile
@pytest.mark.parametrize("name", most_slow(sorted({*PATCHIFIERS.built_in} - {"hnet", "tokens"}), ("spacebyte",)))
def test_patchifiers_that_are_built_in_are_ready_for_cuda(name):
    check_patchifier(name, examples=1, compile=True)


@pytest.mark.compile
@pytest.mark.parametrize("name", most_slow(TRIGGERS.built_in, ("random",)))
def test_triggers_that_are_built_in_are_ready_for_cuda(name):
    check_trigger(name, examples=1, compile=True)
