"""Ranks of models over languages as Markdown, plots and a page. Torch-free."""

from collections.abc import Sequence

from patchpad.pages.heat_map import heat_map
from patchpad.pages.html_page import html_page, scroll_attributes
from patchpad.pages.markdown import markdown_table
from patchpad.pages.svg import escape_text
from patchpad.tasks.ranks import LanguageRanks

NOTHING = "–"  # noqa: RUF001  (a dash for "does not apply")
GROUP_TITLES = {"all": "All languages", "trained": "Languages trained on", "unseen": "Languages not trained on"}
HIGHEST_PERCENT = 20.0
"""The deepest shade, in percent more bits than the best model of the language has."""
SCALE = "% more bits than the best model of the language"
METHOD = (
    "A model's rank in a language is its place by bits per byte, 1 for the fewest; equal models share the mean of "
    "their places. Means give each language the same weight. “Rank and script” is Spearman's rank correlation, "
    "over the languages, of the model's rank with the share of letters that are not Latin: above 0, the model "
    "does worse beside the others where the script is not Latin. “Agreement” is Spearman's correlation of two "
    "models' bits per byte over the languages: 1 where both find the same languages easy. Nothing is tested for "
    "significance here."
)
SUMMARY_HEADINGS = (
    "model",
    "mean rank",
    "bits per byte",
    "bits over the reference's",
    "trunk calls per sentence",
    "first in",
    "last in",
    "rank and script",
)
Table = tuple[Sequence[str], list[list[str]]]


def summary_table(ranks: LanguageRanks, group: str) -> Table:
    """Returns headings and a row for each model of a group of languages."""
    rows = [
        [
            row["model"],
            f"{row['mean_rank']:.2f}",
            f"{row['bits_per_byte']:.4f}",
            f"{row['bits_to_reference']:.3f}",
            f"{row['trunk_calls_per_sentence']:.1f}",
            str(row["first_in"]),
            str(row["last_in"]),
            _signed(row["rank_with_non_latin_share"]),
        ]
        for row in ranks.summary(group)
    ]
    return SUMMARY_HEADINGS, rows


def agreement_table(ranks: LanguageRanks, group: str) -> Table:
    """Returns headings and rows of the correlations between each two models."""
    matrix = ranks.agreement(group).tolist()
    rows = [
        [model, *(_signed(None if value != value else value) for value in matrix[row])]
        for row, model in enumerate(ranks.models)
    ]
    return ("agreement", *ranks.models), rows


def languages_table(ranks: LanguageRanks) -> Table:
    """Returns headings and a row for each language: bits per byte of every model with its rank."""
    words = {True: "yes", False: "no", None: NOTHING}
    rows = [
        [
            language,
            words[ranks.is_trained[column]],
            f"{100 * ranks.non_latin_share[column]:.0f} %",
            *(
                f"{bits:.4f} ({_rank(rank)})"
                for bits, rank in zip(ranks.bits_per_byte[:, column], ranks.ranks[:, column], strict=True)
            ),
        ]
        for column, language in enumerate(ranks.languages)
    ]
    return ("language", "trained on", "letters not Latin", *ranks.models), rows


def ranks_plots(ranks: LanguageRanks, *, standalone: bool = True) -> dict[str, str]:
    """Returns group -> heat map as SVG, of the groups `trained` and `unseen`, or of `all` where there are none.

    A cell holds the model's rank in the language; its shade is how many more bits it needs than the best model there.
    """
    shown = {name: indices for name, indices in ranks.groups.items() if name != "all"} or ranks.groups
    plots = {}
    for group, indices in shown.items():
        plots[group] = heat_map(
            [ranks.languages[column] for column in indices],
            ranks.models,
            ranks.above_best[:, indices].T.tolist(),
            texts=[[_rank(rank) for rank in ranks.ranks[:, column]] for column in indices],
            highest=HIGHEST_PERCENT,
            title=f"Rank of each model. {GROUP_TITLES[group]}: {len(indices)}. {ranks.task}",
            scale_label=SCALE,
            element_id=f"ranks-{ranks.task}-{group}",
            standalone=standalone,
        )
    return plots


def ranks_markdown(ranks: LanguageRanks, *, plots: Sequence[str] = ()) -> str:
    """Returns the summary of each group, the agreement of models and the table of languages.

    Args:
        ranks: of the models.
        plots: paths of pictures, shown behind the summaries.
    """
    parts = []
    for group, indices in ranks.groups.items():
        title = f"**{GROUP_TITLES[group]} ({len(indices)})**"
        parts += [title, markdown_table(*summary_table(ranks, group)), markdown_table(*agreement_table(ranks, group))]
    parts += [f"![rank of each model in each language]({plot})" for plot in plots]
    parts += [METHOD, markdown_table(*languages_table(ranks))]
    return "\n\n".join(parts) + "\n"


def ranks_section(ranks: LanguageRanks) -> str:
    """Returns the tables and heat maps as HTML, for a page with the style of `pages.page_style`."""
    parts = [f"<section>\n<h2>Ranks over languages: {escape_text(ranks.task)}</h2>\n<p>{escape_text(METHOD)}</p>"]
    for group, indices in ranks.groups.items():
        parts.append(f"<h3>{GROUP_TITLES[group]} ({len(indices)})</h3>")
        parts += [_html_table(*summary_table(ranks, group)), _html_table(*agreement_table(ranks, group))]
    parts += [f"<figure>{plot}</figure>" for plot in ranks_plots(ranks, standalone=False).values()]
    parts.append(_html_table(*languages_table(ranks)))
    return "\n".join(parts) + "\n</section>\n"


def ranks_page(ranks: LanguageRanks) -> str:
    """Returns a page of its own."""
    return html_page(f"Ranks over languages: {ranks.task}", ranks_section(ranks))


def _html_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape_text(name)}</th>' for name in headings)
    body = "\n".join(
        f'<tr><th scope="row">{escape_text(row[0])}</th>'
        + "".join(f"<td>{escape_text(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    frame = f"<div {scroll_attributes(f'{headings[0]}: a table')}>"
    return f"{frame}<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>"


def _rank(rank: float) -> str:
    return f"{rank:g}"


def _signed(value: float | None) -> str:
    return NOTHING if value is None else f"{value:+.2f}"
