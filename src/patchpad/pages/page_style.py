"""The style of a report's page: light and dark, wide and narrow, with nothing to download."""

from patchpad.pages.marked_text import MARKED_TEXT_CSS
from patchpad.pages.palette import palette_variables
from patchpad.pages.svg import PLOT_CSS

_LIGHT = (
    "--paper:#fff;--ink:#1c2024;--muted:#5a636d;--rule:#e1e4e8;--soft:#f6f7f9;--accent:#0072b2;--chosen:#eaf4fb;--depth:.062;"
    + palette_variables()
)
_DARK = (
    "--paper:#16181b;--ink:#e8eaed;--muted:#a3abb4;--rule:#2f343a;--soft:#1d2024;--accent:#56b4e9;--chosen:#182c3a;--depth:.05;"
    + palette_variables(dark=True)
)

PAGE_CSS = f"""\
:root{{color-scheme:light dark;{_LIGHT}}}
@media (prefers-color-scheme:dark){{:root{{{_DARK}}}}}
*{{box-sizing:border-box}}
html{{-webkit-text-size-adjust:100%;text-size-adjust:100%}}
body{{margin:0;background:var(--paper);color:var(--ink);font:1rem/1.6 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",sans-serif}}
main{{max-width:62rem;margin:0 auto;padding:3.5rem 1.5rem 5rem}}
h1{{font-size:clamp(1.6rem,1.2rem + 2vw,2.25rem);line-height:1.2;letter-spacing:-.015em;margin:0 0 .75rem;
text-wrap:balance}}
h2{{font-size:1.25rem;line-height:1.3;letter-spacing:-.005em;margin:0 0 1rem}}
h3{{font-size:1rem;margin:2rem 0 .75rem}}
section{{margin-top:3.5rem}}
p{{margin:0 0 1rem;max-width:44rem}}
.lead{{font-size:1.125rem;color:var(--muted);margin:0}}
.note,caption,figcaption{{color:var(--muted);font-size:.875rem;line-height:1.5}}
.tiles{{display:grid;grid-template-columns:repeat(auto-fit,minmax(10.5rem,1fr));gap:1px;margin:2.25rem 0 0;
background:var(--rule);border:1px solid var(--rule);border-radius:.625rem;overflow:hidden}}
.tiles div{{background:var(--paper);padding:1.1rem 1.2rem 1.2rem;display:flex;flex-direction:column}}
.tiles dt{{color:var(--muted);font-size:.875rem;line-height:1.4}}
.tiles dd{{margin:0}}
.tiles .figure{{font-size:1.75rem;line-height:1.3;font-weight:600;letter-spacing:-.02em;margin:.2rem 0}}
.tiles .detail{{color:var(--muted);font-size:.8125rem;line-height:1.45}}
.scroll{{overflow-x:auto;margin:0}}
table{{border-collapse:separate;border-spacing:0;width:100%;font-variant-numeric:tabular-nums;font-size:.9375rem}}
caption{{text-align:left;padding:0 0 .75rem;max-width:min(44rem,100vw - 2.2rem)}}
th,td{{padding:.5rem .75rem;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}}
thead th{{vertical-align:bottom;font-weight:500;font-size:.8125rem;line-height:1.35;color:var(--muted);
white-space:normal;border-bottom-color:var(--muted)}}
tbody th{{font-weight:500}}
th:first-child{{text-align:left}}
.chosen>*{{background:var(--chosen)}}
.badge{{display:inline-block;margin-left:.6em;padding:.05em .55em;border-radius:1em;background:var(--accent);
color:var(--paper);font-size:.75rem;font-weight:600;line-height:1.5}}
.facts th{{font-weight:400;color:var(--muted);padding-left:0}}
.facts td{{text-align:left;white-space:normal;overflow-wrap:anywhere}}
.baselines{{max-width:27rem}}
.columns{{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:2.5rem 3rem;
align-items:start}}
figure{{margin:0;min-width:0}}
.plot{{display:block;width:100%;height:auto;overflow:visible}}
figcaption{{margin-top:.75rem}}
.panel{{background:var(--soft);border:1px solid var(--rule);border-radius:.625rem;padding:1.1rem 1.3rem;margin:0}}
pre.code{{font:.875rem/1.6 ui-monospace,"SF Mono",SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
white-space:pre-wrap;overflow-wrap:anywhere}}
.legend{{list-style:none;padding:0;margin:0 0 1rem;display:grid;gap:.45rem;font-size:.875rem;line-height:1.5;
color:var(--muted)}}
.legend li{{display:grid;grid-template-columns:3.25rem 1fr;gap:.9rem;align-items:baseline}}
.legend .key{{font-family:ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;color:var(--ink);
white-space:nowrap}}
.legend .key i{{padding:.1em .28em}}
dl.words{{display:grid;grid-template-columns:8rem 1fr;gap:.75rem 1.5rem;margin:0;max-width:48rem}}
.words dt{{font-weight:600}}
.words dd{{margin:0}}
:focus-visible{{outline:2px solid var(--accent);outline-offset:3px}}
@media (max-width:40rem){{
main{{padding:2rem 1.1rem 3rem}}
section{{margin-top:2.75rem}}
.tiles{{grid-template-columns:1fr 1fr}}
.tiles div:first-child:nth-last-child(odd){{grid-column:1/-1}}
.tiles div{{padding:.9rem 1rem}}
.points{{min-width:44rem}}
.points th:first-child{{position:sticky;left:0;background:var(--paper)}}
.points .chosen th:first-child{{background:var(--chosen)}}
.badge{{display:block;width:max-content;margin:.15rem 0 0}}
dl.words{{grid-template-columns:1fr;gap:0}}
.words dd{{margin-bottom:.9rem}}
}}
@media print{{main{{max-width:none;padding:0}}section{{break-inside:avoid}}}}
{PLOT_CSS}{MARKED_TEXT_CSS}"""
