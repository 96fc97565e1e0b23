"""Text without meaning that teaches a model to be unsure: random bytes, and random words of many scripts.

Nothing is copied from anywhere, so this text has no licence. A document is one of: uniform bytes; bytes of a random
skewed alphabet; hexadecimal digits, base64 or numbers; or words of one script (or two) drawn from a vocabulary that
the document makes up, so that words come back as in real text.
"""

import base64

import numpy as np

SCRIPTS: dict[str, tuple[tuple[int, int], ...]] = {
    "latin": ((0x61, 0x7A),),
    "latin with marks": ((0x61, 0x7A), (0xDF, 0xFF), (0x100, 0x17F)),
    "latin, more marks": ((0x61, 0x7A), (0x180, 0x24F), (0x1E00, 0x1EFF)),
    "vietnamese": ((0x61, 0x7A), (0x1EA0, 0x1EF9), (0xE0, 0xF5)),
    "latin, phonetic": ((0x61, 0x7A), (0x250, 0x2AF)),
    "greek": ((0x3B1, 0x3CE),),
    "greek with marks": ((0x3B1, 0x3CE), (0x1F00, 0x1FFC)),
    "cyrillic": ((0x430, 0x44F),),
    "cyrillic, more letters": ((0x430, 0x45F), (0x490, 0x4FF)),
    "armenian": ((0x561, 0x586),),
    "hebrew": ((0x5D0, 0x5EA),),
    "hebrew with points": ((0x5B0, 0x5BC), (0x5D0, 0x5EA)),
    "arabic": ((0x621, 0x64A),),
    "arabic, more letters": ((0x621, 0x652), (0x671, 0x6D3)),
    "syriac": ((0x710, 0x72F),),
    "thaana": ((0x780, 0x7B0),),
    "nko": ((0x7CA, 0x7F1),),
    "devanagari": ((0x905, 0x939), (0x93E, 0x94D)),
    "bengali": ((0x985, 0x9B9), (0x9BE, 0x9CD)),
    "gurmukhi": ((0xA05, 0xA39), (0xA3E, 0xA4D)),
    "gujarati": ((0xA85, 0xAB9), (0xABE, 0xACD)),
    "oriya": ((0xB05, 0xB39), (0xB3E, 0xB4D)),
    "tamil": ((0xB85, 0xBB9), (0xBBE, 0xBCD)),
    "telugu": ((0xC05, 0xC39), (0xC3E, 0xC4D)),
    "kannada": ((0xC85, 0xCB9), (0xCBE, 0xCCD)),
    "malayalam": ((0xD05, 0xD39), (0xD3E, 0xD4D)),
    "sinhala": ((0xD85, 0xDC6), (0xDCF, 0xDDF)),
    "thai": ((0xE01, 0xE3A), (0xE40, 0xE4E)),
    "lao": ((0xE81, 0xEBD), (0xEC0, 0xECD)),
    "tibetan": ((0xF40, 0xF6C), (0xF71, 0xF84), (0xF90, 0xFBC)),
    "burmese": ((0x1000, 0x103E),),
    "georgian": ((0x10D0, 0x10FA),),
    "hangul": ((0xAC00, 0xD7A3),),
    "ethiopic": ((0x1200, 0x135A),),
    "cherokee": ((0x13A0, 0x13F4),),
    "canadian": ((0x1401, 0x166C),),
    "khmer": ((0x1780, 0x17B3), (0x17B6, 0x17D2)),
    "mongolian": ((0x1820, 0x1878),),
    "kana": ((0x3041, 0x3096), (0x30A1, 0x30FA)),
    "kana and ideographs": ((0x3041, 0x3096), (0x30A1, 0x30FA), (0x4E00, 0x9FFF)),
    "ideographs": ((0x4E00, 0x9FFF),),
    "ideographs, the rarer ones too": ((0x3400, 0x4DBF), (0x4E00, 0x9FFF)),
    "yi": ((0xA000, 0xA48C),),
    "signs": ((0x2010, 0x2027), (0x2030, 0x205E), (0x20A0, 0x20BF), (0x2100, 0x214F), (0x2190, 0x23FF)),
    "pictures": ((0x2600, 0x27BF), (0x1F300, 0x1F64F), (0x1F680, 0x1F6C5), (0x1F900, 0x1F9FF)),
    "beyond the first plane": ((0x10000, 0x1005D), (0x10400, 0x1049D), (0x1D400, 0x1D7FF), (0x20000, 0x2A6DF)),
    "anything": ((0x20, 0x7E), (0xA1, 0x2FFF), (0x3041, 0x9FFF), (0xAC00, 0xD7A3)),
}
"""Ranges of code points, both ends included. Some hold points that Unicode has not assigned: bytes like any."""
STOPS = {
    "ideographs": "。\uff0c、",
    "kana": "。、",
    "devanagari": "।,",
    "arabic": "،.؟",
    "ethiopic": "።፣",
    "tibetan": "།",
}
"""Signs that end a clause, by the beginning of a script's name; others have ASCII's."""
WITHOUT_SPACES = ("kana", "ideographs", "thai", "lao", "burmese", "khmer", "tibetan")


def noise_document(seed: int, index: int) -> bytes:
    """Returns document number `index` of 1 to 12 thousand bytes; always the same for the same two numbers."""
    random = np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64)))
    size = int(random.integers(1_000, 12_000))
    kind = random.random()
    if kind < 0.1:
        return random.bytes(size)
    if kind < 0.14:
        return _skewed_bytes(random, size)
    if kind < 0.22:
        return _digits(random, size)
    return _words(random, size)


def _skewed_bytes(random: np.random.Generator, size: int) -> bytes:
    """Bytes whose frequencies the document draws, as in tables of numbers or in programs' files."""
    shares = random.dirichlet(np.full(256, 10.0 ** random.uniform(-1.5, 0.5)))
    return random.choice(256, size=size, p=shares).astype(np.uint8).tobytes()


def _digits(random: np.random.Generator, size: int) -> bytes:
    """Hexadecimal digits, base64, or numbers, in lines of the document's own width."""
    kind = random.integers(3)
    if kind == 0:
        text = random.bytes(size // 2).hex()
    elif kind == 1:
        text = base64.b64encode(random.bytes(size * 3 // 4)).decode()
    else:
        digits = int(random.integers(1, 9))
        text = " ".join(str(number) for number in random.integers(0, 10**digits, size // (digits + 1)))
    width = int(random.integers(16, 100))
    return "\n".join(text[begin : begin + width] for begin in range(0, len(text), width)).encode()[:size]


def _letters(random: np.random.Generator, script: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns code points of a script, as many as the document uses, with their frequencies."""
    points = np.concatenate([np.arange(first, last + 1) for first, last in SCRIPTS[script]])
    most = len(points)
    used = random.permutation(points)[: int(min(most, max(12, most * random.uniform(0.1, 1.0))))]
    shares = 1 / (np.arange(len(used)) + random.uniform(1, 20)) ** random.uniform(0, 1.2)
    return used, shares / shares.sum()


def _words(random: np.random.Generator, size: int) -> bytes:
    """Words of one script, of two in one document of six; capitals in one of three."""
    names = list(SCRIPTS)
    scripts = [names[index] for index in random.choice(len(names), size=1 + (random.random() < 1 / 6), replace=False)]
    has_capitals = random.random() < 1 / 3
    vocabulary: list[str] = []
    for script in scripts:
        points, shares = _letters(random, script)
        mean = random.uniform(2, 9)
        for length in 1 + random.poisson(mean, int(10 ** random.uniform(1.5, 3.3))):
            word = "".join(map(chr, random.choice(points, size=length, p=shares)))
            vocabulary.append(word.title() if has_capitals and random.random() < 0.2 else word)
    order = random.permutation(len(vocabulary))
    shares = 1 / (order + 3.0) ** random.uniform(0, 1.1)
    picks = random.choice(len(vocabulary), size=size // 3, p=shares / shares.sum())
    space = "" if scripts[0].startswith(WITHOUT_SPACES) else " "
    stops = next((signs for name, signs in STOPS.items() if scripts[0].startswith(name)), ".,;?!")
    clause, paragraph = random.uniform(4, 15), random.uniform(30, 200)
    draws = random.random((len(picks), 2))
    parts: list[str] = []
    num_bytes = 0
    for pick, (ends_clause, ends_paragraph) in zip(picks, draws, strict=True):
        part = vocabulary[pick]
        if ends_clause < 1 / clause:
            part += stops[int(ends_clause * clause * len(stops))]
        part += "\n" if ends_paragraph < 1 / paragraph else space
        parts.append(part)
        num_bytes += len(part.encode())
        if num_bytes >= size:
            break
    return "".join(parts).encode()
