"""How a report looks: the style sheet that is written into the page."""

STYLE = """
:root { color-scheme: light; --ink: #1d2733; --soft: #5b6876; --line: #e3e7ec; }
* { box-sizing: border-box; }
body { margin: 0; background: #f3f5f8; color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", "DejaVu Sans", Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 20px 24px 40px; }
.banner, .warning { margin: 0 0 10px; padding: 8px 14px; border-radius: 8px; font-weight: 600; }
.banner { background: #fff3d6; border: 1px solid #ecc86a; }
.warning { background: #fde6dc; border: 1px solid #e8946a; }
header h1 { margin: 14px 0 0; font-size: 28px; letter-spacing: -.01em; }
header p { margin: 0 0 16px; color: var(--soft); }
section { background: #fff; border: 1px solid var(--line); border-radius: 12px;
  padding: 16px 20px; margin: 0 0 16px; }
h2 { margin: 0 0 8px; font-size: 17px; }
section.cards { display: grid; grid-template-columns: 1.5fr 1fr 1fr 1fr; gap: 14px;
  background: none; border: 0; padding: 0; }
.card { background: #fff; border: 1px solid var(--line); border-radius: 12px; padding: 14px 18px; }
.card h2 { font-size: 13px; color: var(--soft); font-weight: 600; margin: 0; }
.card p { margin: 4px 0 0; color: var(--soft); font-size: 13px; }
.card .value { font-size: 34px; font-weight: 700; color: var(--ink); line-height: 1.2;
  font-variant-numeric: tabular-nums; }
.gauge { display: block; height: 7px; border-radius: 4px; background: #e8ecf1; margin: 6px 0; }
.gauge b { display: block; height: 100%; border-radius: 4px; background: #d94801; }
.gauge.grey b { background: #7d8b9a; }
section.two { display: grid; grid-template-columns: 1.25fr 1fr; gap: 26px; }
.slide { margin: 8px 0; border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
.slide svg { display: block; width: 100%; height: auto; }
.legend text, .two text { font-size: 12px; fill: #44505c; }
.legend { display: flex; gap: 22px; align-items: center; }
.legend svg { flex: none; }
.legend p { margin: 0; color: var(--soft); font-size: 13px; }
section > input { margin: 0 5px 0 0; vertical-align: middle; }
section > label { margin-right: 16px; color: var(--soft); font-size: 14px; cursor: pointer; }
#heat:not(:checked) ~ .slide .heat, #marks:not(:checked) ~ .slide .marks,
#focus:not(:checked) ~ .slide .focus, #coverage:not(:checked) ~ .slide .coverage,
#focus:not(:checked) ~ .focus-words, #coverage:not(:checked) ~ .coverage-words { display: none; }
.focus-words, .coverage-words { margin: 0 0 6px; color: var(--soft); font-size: 13px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 5px 10px 5px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
td:first-child { white-space: nowrap; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
table.plain td { white-space: normal; overflow-wrap: anywhere; }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 7px;
  background: #c2571a; }
.dot.ACCEPTED { background: #1b7837; } .dot.DUPLICATE { background: #9aa5b1; }
.dot.BLANK { background: #d9dee4; } .dot.DROPPED { background: #7b3294; }
.fields { display: grid; grid-template-columns: repeat(4, 1fr); gap: 14px; }
figure { margin: 0; }
figure img { width: 100%; display: block; border-radius: 8px; border: 1px solid var(--line); }
figcaption { display: flex; gap: 8px; align-items: center; font-size: 13px; margin-top: 5px; }
.rank { background: #111; color: #fff; border-radius: 50%; width: 20px; height: 20px;
  text-align: center; line-height: 20px; font-size: 12px; }
.up, .down { margin-left: auto; font-weight: 700; font-variant-numeric: tabular-nums; }
.up { color: #b23c00; } .down { color: #08519c; }
footer { color: var(--soft); font-size: 13px; text-align: center; }
@media (max-width: 820px) { section.cards, section.two { grid-template-columns: 1fr; }
  .fields { grid-template-columns: 1fr 1fr; } .legend { display: block; } }
@media print { body { background: #fff; } section, .card { break-inside: avoid; } }
""".strip()
