"""The page's frame and style sheet: light or dark as the reader has it, printable."""

from pxy.report import curve

STYLE = """
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 70rem; padding: 3rem 1.5rem 5rem;
  background: var(--paper); color: var(--ink);
  font: 16px/1.5 var(--font); -webkit-text-size-adjust: 100%;
}
h1 { font-size: 1rem; font-weight: 600; color: var(--muted); margin: 0 0 .75rem; }
h2 { font-size: 1.05rem; margin: 0 0 .4rem; }
.lead { font-size: 1.5rem; line-height: 1.35; margin: 0; max-width: 46rem;
  letter-spacing: -.01em; text-wrap: pretty; }
.facts, .note, figcaption { color: var(--muted); font-size: .85rem; }
.facts { margin: .9rem 0 2.2rem; }
.note { margin: .5rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .26rem .6rem; text-align: right; white-space: nowrap; }
th { font-weight: 400; }
th:first-child { text-align: left; padding-left: 0; }
td:last-child, th:last-child { padding-right: 0; }
thead th, tr.head th { color: var(--muted); font-size: .85rem;
  border-bottom: 1px solid var(--grid); }
tr.head:not(:first-child) th { padding-top: 1rem; }
.tables { display: grid; gap: 1rem 3rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(27rem, 100%), 1fr)); }
.tables table { width: 100%; font-size: .92rem; }
tbody tr:not(.head):hover { background: var(--shade); }
.plots { display: grid; gap: 2.6rem 3rem; margin: 3rem 0;
  grid-template-columns: repeat(auto-fit, minmax(min(27rem, 100%), 1fr)); }
figure { margin: 0; break-inside: avoid; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { margin-top: .3rem; text-wrap: pretty; }
.problem { border-top: 1px solid var(--grid); padding: .9rem 0 1.1rem;
  break-inside: avoid; }
.prompt { margin: 0 0 .6rem; font-weight: 600; overflow-wrap: anywhere;
  white-space: pre-wrap; }
.prompt .note { font-weight: 400; }
.pair { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); }
.pair > div { border-left: 3px solid var(--grid); padding-left: .8rem; min-width: 0; }
.pair > .right { border-color: var(--c2); }
.pair > .wrong { border-color: var(--c1); }
.right b { color: var(--c2); }
.wrong b { color: var(--c1); }
.pair .note { margin: 0 0 .3rem; }
pre { margin: 0; font: .82rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; max-height: 26rem; overflow: auto;
  unicode-bidi: isolate; }
.part { border-top: 1px solid var(--grid); padding: 1.4rem 0 .6rem; }
.part > h2 { font-size: 1.25rem; }
h3 { font-size: 1rem; margin: 0 0 .4rem; }
.said, .measures { font-size: .85rem; margin: .8rem 0 1.6rem; }
.said td, .measures td:last-child { text-align: left; }
.said th, .measures th:last-child { text-align: left; }
.measures td:first-child, .said td:first-child { text-align: left; padding-left: 0; }
.said td { white-space: normal; vertical-align: top; overflow-wrap: anywhere;
  min-width: 6rem; }
.measures td:last-child { color: var(--muted); }
details { border-top: 1px solid var(--grid); padding: .8rem 0; }
summary { cursor: pointer; color: var(--muted); }
details pre { max-height: none; margin-top: .6rem; }
li { margin: .4rem 0; }
@media print { body { max-width: none; padding: 0; } pre { max-height: none; } }
"""

POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(title: str, body: str) -> str:
  """A whole document; `title` and `body` are HTML already."""
  light, dark = (
    "".join(f"--{name}: {pair[i]};" for name, pair in curve.COLOURS.items())
    for i in (0, 1)
  )
  font = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif'
  return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --font: {font}; {light} }}
@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}
{STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""
