"""The one place that chooses how attention is computed: by the reference, fused on a CPU, by FlexAttention on CUDA."""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from patchpad.errors import ConfigError
from patchpad.model.attention import SlotAttention, WindowAttention
from patchpad.model.document_attention import DocumentAttention
from patchpad.model.flex_attention import FlexSlotAttention, FlexWindow, FlexWindowAttention, has_given_up
from patchpad.model.fused_attention import FusedSlotAttention
from patchpad.model.visibility import Window
from patchpad.patching.documents import Documents
from patchpad.patching.layout import PatchLayout
from patchpad.shapes import ByteInts

BACK_ENDS = ("auto", "reference", "flex")

_chosen: ContextVar[str] = ContextVar("attention_back_end", default="auto")


@contextmanager
def attention_back_end(name: str) -> Iterator[None]:
    """Chooses the attention of all full passes inside a `with` block.

    Args:
        name: `auto` takes FlexAttention on CUDA as long as it runs there, the fused trunk attention on a CPU, and the
            reference elsewhere; `reference` takes neither; `flex` always takes FlexAttention, on a CPU unfused and
            without gradients, and lets its errors through. A pass that is compiled as a whole keeps the choice at its
            first call.

    Raises:
        ConfigError: an unknown name.
    """
    if name not in BACK_ENDS:
        raise ConfigError(f"attention back end is {name!r}; allowed: {', '.join(BACK_ENDS)}")
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


def window_attentions(
    documents: Documents, window_bytes: Sequence[int], *, keep: bool = False
) -> list[WindowAttention | FlexWindowAttention]:
    """Returns the attention of local parts with these windows; parts with one size share its mask."""
    if not _takes_flex(documents.start.device):
        windows = {size: Window.build(documents, size) for size in set(window_bytes)}
        return [WindowAttention(windows[size], keep=keep) for size in window_bytes]

    flex_windows = {size: FlexWindow(documents.start, size) for size in set(window_bytes)}
    references = {size: WindowReference(documents, size) for size in flex_windows} if _choice() == "auto" else {}
    return [
        FlexWindowAttention(flex_windows[size], keep=keep, make_reference=references.get(size)) for size in window_bytes
    ]


class WindowReference:
    """Makes the reference of a window where it is needed; parts with one size share its mask."""

    def __init__(self, documents: Documents, window_bytes: int) -> None:
        self.documents, self.window_bytes = documents, window_bytes
        self.window: Window | None = None

    def __call__(self) -> WindowAttention:
        """Returns a back end."""
        self.window = self.window or Window.build(self.documents, self.window_bytes)
        return WindowAttention(self.window)


def document_attention(start: ByteInts, *, keep: bool = False) -> DocumentAttention | FlexWindowAttention:
    """Returns the attention of a plain Transformer: each position sees those before it in its document, and itself.

    Args:
        start: first position that each position sees; in a row it never falls.
        keep: remember keys and values for a prefill.
    """
    if not _takes_flex(start.device):
        return DocumentAttention(start, keep=keep)
    whole_row = FlexWindow(start, start.shape[1])
    reference = functools.partial(DocumentAttention, start) if _choice() == "auto" else None
    return FlexWindowAttention(whole_row, keep=keep, make_reference=reference)


def slot_attention(
    layout: PatchLayout, *, keep: bool = False
) -> SlotAttention | FusedSlotAttention | FlexSlotAttention:
    """Returns the attention of the trunk."""
    device = layout.slot_byte.device
    if not _takes_flex(device):
        is_fused = _choice() == "auto" and device.type == "cpu" and layout.is_exact
        return FusedSlotAttention(layout, keep=keep) if is_fused else SlotAttention(layout, keep=keep)
    reference = functools.partial(SlotAttention, layout) if _choice() == "auto" else None
    return FlexSlotAttention(layout, keep=keep, make_reference=reference)


def _choice() -> str:
    return _chosen.get()


# What `torch.compiler.assume_constant_result` does; that would load the whole compiler, which takes over a second.
_choice._dynamo_marked_constant = True  # pyrefly: ignore[missing-attribute]


def _takes_flex(device: torch.device) -> bool:
    choice = _choice()
    return choice == "flex" or (choice == "auto" and device.type == "cuda" and not has_given_up())
