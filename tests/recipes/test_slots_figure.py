"""The picture of the method shows every slot, byte and visible pair, as the layout has them."""

import re
import xml.etree.ElementTree as ElementTree

import pytest
import torch
from slots_figure import slots_figure

import patchpad
from patchpad.model.visibility import visible_commits
from patchpad.testing import as_row, sharp_model, tiny_model_config

TEXT = "Ein Satz, mit <Zeichen> & größer als 16 Bytes"


@pytest.mark.parametrize("threshold", [float("inf"), 2.0, float("-inf")])
def test_every_slot_byte_and_visible_pair_is_drawn(threshold):
    model = sharp_model(tiny_model_config("spacebyte", "entropy"))
    inspection = patchpad.inspect(model, TEXT, scratchpad_threshold_nats=threshold)
    with torch.no_grad():
        layout = model(torch.tensor([as_row(TEXT.encode())]), threshold).layout
    # The text's last byte is a slot of the layout as well as of the inspection: one window holds all.
    svg = slots_figure(inspection)
    ElementTree.fromstring(svg)  # well formed, whatever the bytes are
    pools = re.findall(r'class="pools-(commit|pad)"', svg)
    in_order = layout.rows.slots[0]
    assert pools == ["commit" if commit else "pad" for commit in layout.slot_is_commit[in_order].tolist()]
    num_visible = layout.room.slots + int(visible_commits(layout, 0).sum())
    assert len(re.findall(r'class="reads-\w+" d="[^"]+" opacity="1"', svg)) == num_visible
    numbers = re.findall(r'class="on-colour"[^>]*>([^<]+)<', svg)
    number_of = {slot + 1: str(number) for number, slot in enumerate(in_order.tolist(), start=1)}
    expected = [number_of.get(slot, "∅") for slot in layout.newest_slot[0, 1:].tolist()]
    assert numbers == expected
