"""The style sheet of the quality-control page: dark on light, for screen, phone and print."""

STYLE = """
:root { --ink: #1a212b; --soft: #5a6675; --line: #dde2e8; --paper: #fff; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 1120px; color: var(--ink);
  background: var(--paper); font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial,
  sans-serif; }
h1 { margin: 0; font-size: 1.6rem; line-height: 1.25; letter-spacing: -.01em; }
h2 { margin: 3rem 0 .9rem; font-size: 1.15rem; }
h3 { margin: 0; font-size: 1rem; }
p { margin: .3rem 0; }
.soft, figcaption p, dt, th, small { color: var(--soft); }
.pair { overflow-wrap: anywhere; }
.verdict { margin: 1.5rem 0 0; padding: .9rem 1.1rem; border-left: 5px solid; border-radius: 4px;
  overflow-wrap: anywhere; }
.verdict h2 { margin: 0; font-size: 1.15rem; }
.verdict ul { margin: .35rem 0 0; padding-left: 1.2rem; }
.good { background: #e6f5ea; color: #12512a; border-color: #2a9d5c; }
.doubtful { background: #fff4d6; color: #4d3500; border-color: #e09a00; }
.bad { background: #fde7e7; color: #6b1111; border-color: #c92a2a; }
.warnings { margin: 1.5rem 0 0; padding: .9rem 1.1rem; background: #fff4d6; color: #4d3500;
  border-left: 5px solid #e09a00; border-radius: 4px; overflow-wrap: anywhere; }
.warnings h2 { margin: 0; font-size: 1rem; }
.warnings ul { margin: .35rem 0 0; padding-left: 1.2rem; }
.results { display: grid; grid-template-columns: repeat(var(--columns), 1fr); gap: 1px;
  margin: 1.5rem 0 0; background: var(--line); border: 1px solid var(--line); border-radius: 6px;
  overflow: hidden; }
.results div { padding: .7rem .9rem; background: var(--paper); }
.results dt { font-size: .82rem; }
.results dd { margin: 0; font-size: 1.2rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.results small { font-size: .78rem; font-weight: 400; }
figure { margin: 1.6rem 0 2.2rem; break-inside: avoid; }
figcaption { display: flex; flex-wrap: wrap; align-items: baseline; gap: .1rem .9rem;
  margin-bottom: .5rem; }
figcaption p { margin: 0; font-size: .88rem; }
.planes { display: grid; grid-template-columns: var(--widths); gap: 4px; align-items: start; }
.plane { position: relative; overflow: hidden; border-radius: 3px; color: #fff;
  font-size: 11px; line-height: 1; text-shadow: 0 0 3px #000; }
.plane img { display: block; width: 100%; height: auto; }
.light .plane { color: #111; text-shadow: 0 0 3px #fff; }
.plane span { position: absolute; padding: 5px; }
.plane .name { top: 0; left: 0; opacity: .75; }
.plane .left { left: 0; top: 50%; transform: translateY(-50%); font-weight: 600; }
.plane .right { right: 0; top: 50%; transform: translateY(-50%); font-weight: 600; }
.plane .top { top: 0; left: 50%; transform: translateX(-50%); font-weight: 600; }
.plane .bottom { bottom: 0; left: 50%; transform: translateX(-50%); font-weight: 600; }
.legend { display: flex; flex-wrap: wrap; align-items: center; gap: .3rem 1.4rem;
  margin-top: .5rem; font-size: .82rem; font-variant-numeric: tabular-nums; }
.ramp { display: grid; grid-template-columns: 1fr 1fr 1fr; width: 260px; }
.ramp i { grid-column: 1 / -1; height: 10px; border: 1px solid var(--line); }
.ramp span:nth-of-type(2) { text-align: center; }
.ramp span:nth-of-type(3) { text-align: right; }
.key i { display: inline-block; width: 18px; height: 6px; margin-right: .45rem;
  vertical-align: middle; border-radius: 1px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th { font-weight: 500; text-align: left; }
th, td { padding: .2rem 1.4rem .2rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { vertical-align: bottom; }
td.number, th.number { text-align: right; }
td.number { white-space: nowrap; }
td.path { min-width: 11rem; overflow-wrap: anywhere; }
.scores tbody tr:first-child td { font-weight: 600; }
td.hash { font: .9em/1.6 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
i { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
@media screen and (max-width: 640px) {
  body { padding: 1.4rem .9rem 3rem; }
  h1 { font-size: 1.3rem; }
  .results { grid-template-columns: 1fr 1fr; }
  .results dd { font-size: 1.05rem; }
  .planes { display: flex; overflow-x: auto; scroll-snap-type: x mandatory; }
  .plane { flex: none; scroll-snap-align: start; }
  .plane img { width: auto; height: 62vw; }
  th, td { padding-right: .9rem; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  h2 { break-after: avoid; }
  .verdict, .warnings, .results { break-inside: avoid; }
}
"""
