"""`train.activation_checkpointing` changes what is kept, not what is learned."""

from patchpad.model.block import Block
from patchpad.training import trainer


def test_a_run_learns_the_same_while_trunk_blocks_are_computed_twice(tmp_path, text, tools, monkeypatch):
    calls = []
    plain = Block.forward
    monkeypatch.setattr(Block, "forward", lambda self, *rest: calls.append(self) or plain(self, *rest))
    runs = {}
    for chosen in (False, True):
        calls.clear()
        config = tools.config(steps=3, validate_every=0, activation_checkpointing=chosen)
        run = trainer.train(config, data=text, out=tmp_path / str(chosen), progress=tools.Hook())
        (trunk_block,) = run.model.trunk.stack.blocks
        (local_block,) = run.model.local_encoder.stack.blocks
        runs[chosen] = calls.count(trunk_block) - calls.count(local_block), tools.losses(run.path)
    assert [extra for extra, _ in runs.values()] == [0, 3]
    assert runs[True][1] == runs[False][1]
