"""`CertainTokens`: the tokens of a piece that has not closed that stay, whatever follows.

Merges are local: a text is encoded to a list of tokens if, and only if, the text of each two neighbours is encoded to
just these two. So whatever follows the piece so far, there are two cases. Either all its tokens stay as they are, or
one token goes on beyond the newest byte, and before it stand the tokens of some beginning of the piece. The tokens that
all these possibilities begin with are certain.
"""

import bisect
import functools

from patchpad.patching.byte_level_bpe import ByteLevelBpe, characters_of

CACHED_BEGINNINGS = 1 << 16
"""Beginnings of pieces whose tokens are remembered."""


class CertainTokens:
    """Finds the certain tokens of pieces that are given with one character a byte.

    It assumes that any token may come next, even one that the rules for cutting a text would not let into this piece,
    or that is not a token of its own text. So it finds no token too early, and a few later than they could be known.

    Args:
        bpe: the tokenizer.
    """

    def __init__(self, bpe: ByteLevelBpe) -> None:
        self._bpe = bpe
        self._words = sorted(characters_of(data) for data in bpe.bytes_of if data)
        self._beginning = functools.lru_cache(CACHED_BEGINNINGS)(bpe.merged)

    def beyond(self, piece: str, num_bytes: int, num_whole: int | None = None) -> tuple[int, ...]:
        """Returns the certain tokens behind the first bytes of a piece; they end before its newest byte.

        Args:
            piece: from its first byte to the newest one.
            num_bytes: how many of its bytes tokens cover that were certain before.
            num_whole: bytes before a character that is unfinished, where the piece may also end; None without one.
        """
        place = bisect.bisect_left(self._words, piece)
        if place < len(self._words) and self._words[place].startswith(piece):
            return ()  # which may become one token, even if no merges lead to it (`ignore_merges`)
        tokens = self._bpe.merged(piece)
        known = self._bpe.tokens_over(tokens, num_bytes)
        if known is None:
            return ()
        certain = len(tokens) - 1
        for end in range(max(1, num_bytes), len(piece)):
            if certain <= known:
                return ()
            beginning = self._bpe.encode(piece[:end]) if end == num_whole else self._beginning(piece[:end])
            shared = known
            while shared < min(certain, len(beginning)) and beginning[shared] == tokens[shared]:
                shared += 1
            if shared < certain and (end == num_whole or self._goes_on(beginning[-1], piece[end:])):
                certain = shared
        return tokens[known:certain]

    def _goes_on(self, token: int, text: str) -> bool:
        """Whether a token that begins with a text, and goes on, may stand behind another token."""
        before = characters_of(self._bpe.text_of(token))
        for place in range(bisect.bisect_right(self._words, text), len(self._words)):
            word = self._words[place]
            if not word.startswith(text):
                break
            found = self._bpe.merged(before + word)
            if len(found) == 2 and found[0] == token:
                return True
        return False


__all__ = ["CertainTokens"]
