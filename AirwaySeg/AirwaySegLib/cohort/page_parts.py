"""Style and script of the page of a cohort; the script sorts and filters the table."""

STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:1.5em auto;max-width:1250px;padding:0 1em;color:#1c2126;background:#fff}
h1{margin:0 0 .2em}h2{margin:1.6em 0 .4em;border-bottom:1px solid #cdd3d8}
a{color:#00695c}nav a{margin-right:1em}
.figures,.montage{display:flex;flex-wrap:wrap;gap:14px}figure{margin:0}figcaption{font-size:13px}
.figures svg{width:300px;height:150px;display:block}.montage figcaption{max-width:260px;overflow-wrap:anywhere}
.bar{fill:#26897c}.median{stroke:#a33;stroke-dasharray:4 3}.axis{stroke:#778}
.band{fill:#26897c44}.line{fill:none;stroke:#00695c;stroke-width:2}svg text{font:11px system-ui,sans-serif;fill:#444b52}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:14px}
td,th{padding:3px 9px;border-bottom:1px solid #e3e7ea}
th{text-align:left;position:sticky;top:0;background:#f3f5f6}th button{all:unset;cursor:pointer;font-weight:600}
th button:focus-visible{outline:2px solid #00695c}th[aria-sort=ascending] button::after{content:" \\2191"}
th[aria-sort=descending] button::after{content:" \\2193"}.number{text-align:right;font-variant-numeric:tabular-nums}
tr.failed td{background:#fbe9e7}tr.not-run td{background:#f5f5f5}td:first-child{overflow-wrap:anywhere;min-width:17em}
img{display:block;height:auto;background:#101216}
@media(prefers-color-scheme:dark){body{background:#15191d;color:#dfe4e8}a{color:#5fc4b5}th{background:#1f252a}
td,th{border-color:#2c343b}h2{border-color:#39424a}svg text{fill:#aab3bb}tr.failed td{background:#4a2320}
tr.not-run td{background:#22282d}.line{stroke:#5fc4b5}}
"""

SCRIPT = """
const body = document.querySelector("tbody"), heads = [...document.querySelectorAll("th")];
const value = (row, column) => { const cell = row.cells[column];
  return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value); };
heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
  const up = head.getAttribute("aria-sort") !== "ascending";
  heads.forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const rows = [...body.rows].sort((a, b) => { const one = value(a, column), two = value(b, column);
    if (one === "" || two === "") return (one === "") - (two === "");
    const order = typeof one === "number" && typeof two === "number" ? one - two
      : String(one).localeCompare(String(two), undefined, {numeric: true});
    return up ? order : -order; });
  body.append(...rows); }));
document.getElementById("filter").addEventListener("input", event => { const text = event.target.value.toLowerCase();
  for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(text); });
"""
