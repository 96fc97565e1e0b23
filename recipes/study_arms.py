"""The arms of configs/studies/laptop.yaml by the part that they play, and what its page compares with what."""

ARMS = {  # role -> its arm in configs/studies/laptop.yaml
    "byte model": "fixed1-never",
    "plain 4": "fixed4-never",
    "plain 16": "fixed16-never",
    "16": "fixed16-entropy",
    "short plain 16": "fixed16-never-half",
    "short 16": "fixed16-entropy-half",
    "head only": "fixed16-head-only",
    "random": "fixed16-random",
    "stride": "fixed16-stride4",
    "entropy jump": "fixed16-entropy-jump",
    "whitespace": "fixed16-whitespace",
    "at the rate of whitespace": "fixed16-entropy-as-whitespace",
    "always": "fixed16-always",
    "spread": "fixed16-entropy-spread",
    "short plain 4": "fixed4-never-half",
    "plain 4, 8 heads": "fixed4-never-8heads",
    "8 heads": "fixed16-entropy-8heads",
    "plain fixed": "fixed8-never",
    "fixed": "fixed8-entropy",
    "plain spacebyte": "spacebyte-never",
    "spacebyte": "spacebyte-entropy",
    "plain entropy": "entropy-never",
    "entropy": "entropy-entropy",
    "plain hnet": "hnet-never",
    "hnet": "hnet-entropy",
    "bpe": "bpe",
    "code byte model": "code-fixed1-never",
    "code plain 4": "code-fixed4-never",
    "code plain 16": "code-fixed16-never",
    "code 16": "code-fixed16-entropy",
}
BYTE_MODELS = {"books": "byte model", "code": "code byte model"}
PATCHIFIERS = ("fixed", "spacebyte", "entropy", "hnet")
EQUAL_RATE = "0.1875"  # 3/16 scratchpads and 1/16 patches per byte are 1/4 trunk call
CLAIMS = (  # what is compared with what, and where along the threshold if not at the stored one
    ("C1", "16", "plain 16"),
    ("C1", "short 16", "short plain 16"),
    ("C1", "code 16", "code plain 16"),
    ("C2", "plain 16", "byte model"),
    ("C2", "16", "byte model"),
    ("C2", "code plain 16", "code byte model"),
    ("C2", "code 16", "code byte model"),
    ("C3", "16", "plain 4"),
    ("C3", "16", "plain 4", EQUAL_RATE),
    ("C3", "code 16", "code plain 4"),
    ("C3", "code 16", "code plain 4", EQUAL_RATE),
    ("C3", "short 16", "head only"),
    ("C3", "head only", "short plain 16"),
    ("C3", "short 16", "short plain 4", EQUAL_RATE),
    ("C3", "8 heads", "plain 4, 8 heads", EQUAL_RATE),
    *(("C4", "16", "plain 16", at) for at in ("never", "0.0625")),
    ("C4", "short 16", "always"),
    *(("C4", "spread", "short 16", at) for at in ("never", EQUAL_RATE, "always")),
    *(("C5", patchifier, f"plain {patchifier}") for patchifier in PATCHIFIERS),
    ("C6", "short 16", "random", EQUAL_RATE),
    ("C6", "short 16", "stride", EQUAL_RATE),
    ("C6", "short 16", "entropy jump", EQUAL_RATE),
    ("C6", "at the rate of whitespace", "whitespace"),
)
SHARES = (("C2", "16", "plain 16", "byte model"), ("C2", "code 16", "code plain 16", "code byte model"))
EQUAL_FLOPS = (
    ("C3", "16", "plain 4"),
    ("C3", "code 16", "code plain 4"),
    ("C3", "short 16", "short plain 4"),
    ("C3", "8 heads", "plain 4, 8 heads"),
    *(("C5", patchifier, "fixed") for patchifier in PATCHIFIERS[1:]),
    *(("C6", "short 16", control) for control in ("random", "stride")),
    ("C6", "at the rate of whitespace", "whitespace"),
)
CURVE = "16"
PARTS = {"tier 1": ("books", 1), "tier 2": ("books", 2), "code": ("code", 2)}
