"""The explainer's plots, its table, and what it says of them, from a result of `explainer_measuring.measure`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from patchpad.pages.line_plot import Series, line_plot
from patchpad.pages.svg import escape_text

Setting = Mapping[str, Any]


def curves(measured: Mapping[str, Any]) -> dict[str, str]:
    """Returns the parts of the page that measured numbers make, by the names of the template."""
    texts = measured["texts"]
    return {
        "places_table": _places_table(texts),
        "lag_plot": _lag_plot(texts),
        "dial_plot": _dial_plot(texts[0]),
        "sizes_rows": _sizes_rows(measured["patch_sizes"]),
        **_words(measured),
    }


def settings_of(text: Mapping[str, Any], places: str, **more: Any) -> list[Setting]:
    """Returns the settings of a text with these places and values."""
    return [
        one
        for one in text["settings"]
        if one["places"] == places and all(one.get(key) == value for key, value in more.items())
    ]


def mean_of(settings: Sequence[Setting], key: str) -> float:
    """Returns the mean of a value over settings, such as the seeds of one rate."""
    return float(np.mean([one[key] for one in settings]))


def change(text: Mapping[str, Any], settings: Sequence[Setting]) -> float:
    """Returns how many percent more bits settings have than no scratchpads."""
    (never,) = settings_of(text, "never")
    return 100 * (mean_of(settings, "bits_per_byte") / never["bits_per_byte"] - 1)


def percent(value: float, digits: int = 2) -> str:
    """Returns a percentage with its sign."""
    sign = "−" if value < 0 else "+"  # noqa: RUF001
    return f"{sign}{abs(value):.{digits}f} %"


def lag_costs(text: Mapping[str, Any]) -> list[float]:
    """Returns what bytes cost more without scratchpads than with them, in bits, by their lag without."""
    (never,), (stored,) = settings_of(text, "never"), settings_of(text, "stored")
    return [plain - fresh for plain, fresh in zip(never["by_place"], stored["by_place"], strict=True)]


def _places_table(texts: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        ("where the next byte is uncertain", "stored", {}),
        ("at random places, as many", "random", {"is_stored_rate": True}),
        ("at every fourth byte", "every 4 bytes", {}),
        ("at the ends of words", "ends of words", {}),
        ("at every byte", "always", {}),
    ]
    body = []
    for label, places, more in rows:
        cells = []
        for text in texts:
            found = settings_of(text, places, **more)
            rate = mean_of(found, "scratchpads_per_byte")
            cells.append(f"<td>{percent(change(text, found))}<br><small>{rate:.2f}</small></td>")
        chosen = ' class="chosen"' if places == "stored" else ""
        body.append(f"<tr{chosen}><th>{label}</th>{''.join(cells)}</tr>\n")
    heads = "".join(f"<th>{escape_text(text['text'])}<br>{text['num_bytes'] / 1000:.0f} kB</th>" for text in texts)
    seeds = len(settings_of(texts[0], "random", is_stored_rate=True))
    return (
        '<div class="scroll"><table>\n<caption>Change of bits per byte against no scratchpads; below it, scratchpads '
        f"per byte. Same weights, same bytes; only the places differ. Random places: mean of {seeds} seeds.</caption>\n"
        f"<thead><tr><th>scratchpads</th>{heads}</tr></thead>\n<tbody>\n{''.join(body)}</tbody></table></div>"
    )


def _lag_plot(texts: Sequence[Mapping[str, Any]]) -> str:
    return line_plot(
        [Series(text["text"], list(enumerate(lag_costs(text)))) for text in texts],
        title="What lag costs",
        x_label="patch lag without scratchpads (bytes)",
        y_label="extra bits per byte without scratchpads",
        width=500,
        height=340,
        element_id="lag-plot",
    )


def _dial_plot(text: Mapping[str, Any]) -> str:
    (never,), (stored,), (always,) = (settings_of(text, places) for places in ("never", "stored", "always"))
    uncertain = sorted([never, *settings_of(text, "uncertain"), stored, always], key=_calls)
    random = [never, *settings_of(text, "random"), always]
    groups: dict[float, list[Setting]] = {}
    for one in random:
        groups.setdefault(one.get("rate", one["scratchpads_per_byte"]), []).append(one)
    means = sorted(
        (mean_of(group, "trunk_calls_per_byte"), mean_of(group, "bits_per_byte")) for group in groups.values()
    )
    reaches = [_spread(group) for group in sorted(groups.values(), key=lambda g: mean_of(g, "trunk_calls_per_byte"))]
    return line_plot(
        [
            Series("uncertain places", [(_calls(one), one["bits_per_byte"]) for one in uncertain], look=0),
            Series("random places", means, deviations=reaches, dashed=True, look=1),
            Series("stored threshold", [(_calls(stored), stored["bits_per_byte"])], point_labels=["stored"], look=2),
        ],
        title=f"{text['text']}: one set of weights along the dial",
        x_label="trunk calls per byte",
        y_label="bits per byte",
        width=500,
        height=340,
        element_id="dial-plot",
    )


def _calls(setting: Setting) -> float:
    return setting["trunk_calls_per_byte"]


def _spread(settings: Sequence[Setting]) -> float | None:
    """Returns the standard deviation over seeds; None of one."""
    return float(np.std([one["bits_per_byte"] for one in settings], ddof=1)) if len(settings) > 1 else None


def _sizes_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    sizes = sorted({one["patch_size"] for one in rows})
    body = []
    for size in sizes:
        never, stored = (
            next(one for one in rows if (one["patch_size"], one["places"]) == (size, places))
            for places in ("never", "stored")
        )
        body.append(
            f"<tr><th>{size}</th><td>{never['mean_patch_lag']:.2f}</td><td>{never['bits_per_byte']:.3f}</td>"
            f"<td>{stored['mean_patch_lag']:.2f}</td><td>{stored['bits_per_byte']:.3f}</td></tr>\n"
        )
    return "".join(body)


def _words(measured: Mapping[str, Any]) -> dict[str, str]:
    """Returns the sentences with measured numbers; `test_what_the_page_says...` checks what they claim."""
    texts, sizes = measured["texts"], measured["patch_sizes"]
    prose, code = texts[0], texts[-1]
    (never,), (stored,), (without,) = (settings_of(prose, places) for places in ("never", "stored", "trunk not read"))
    own = max(one["patch_size"] for one in sizes)
    at_one, at_own = (_plain(sizes, size)["bits_per_byte"] for size in (1, own))
    names = [f"<cite>{escape_text(text['text'])}</cite>" for text in texts]
    saved = [change(text, settings_of(text, "stored")) for text in texts]
    random = [change(text, settings_of(text, "random", is_stored_rate=True)) for text in texts]
    return {
        "first_text": names[0],
        "first_bytes": f"{prose['num_bytes']:,}",
        "last_text": names[-1],
        "sizes_one": f"{at_one:.3f}",
        "sizes_own": f"{at_own:.3f}",
        "saved_list": _listed([f"{percent(one, 1)} on {name}" for one, name in zip(saved, names, strict=True)]),
        "random_list": _listed([f"{percent(b, 1)} with {percent(a, 1)}" for a, b in zip(random, saved, strict=True)]),
        "calls_without": f"{_calls(never):.3f}",
        "calls_with": f"{_calls(stored):.3f}",
        "bits_without": f"{never['bits_per_byte']:.2f}",
        "bits_alone": f"{without['bits_per_byte']:.2f}",
        **_lag_words(prose, "prose"),
        **_lag_words(code, "code"),
        "bytes_per_point": f"{(prose['num_bytes'] - prose['num_windows'] * prose['lead_in_bytes']) // own:,}",
        "last_lag": str(own - 1),
    }


def _lag_words(text: Mapping[str, Any], name: str) -> dict[str, str]:
    costs = lag_costs(text)
    quarter = len(costs) // 4
    last = np.mean(costs[-quarter:])
    return {
        f"lag_{name}_first": f"{np.mean(costs[:quarter]):.3f}",
        f"lag_{name}_last": f"{last:.3f}",
        f"lag_{name}_share": f"{100 * last / np.mean(settings_of(text, 'never')[0]['by_place'][-quarter:]):.0f} %",
    }


def _plain(rows: Sequence[Mapping[str, Any]], size: int) -> Setting:
    return next(one for one in rows if (one["patch_size"], one["places"]) == (size, "never"))


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
