"""The page around a report: its style in light and dark, and the script that sorts, filters and hides."""

from __future__ import annotations

import html
from collections.abc import Sequence

COLORS = 8
# After Okabe and Ito: colors that people with color-vision deficiencies can tell apart.
STYLE = """
:root{color-scheme:light dark;--fg:#1a1c20;--bg:#fff;--soft:#5b6270;--line:#d8dce3;--fill:#eef0f4;
--c0:#0072b2;--c1:#c04a00;--c2:#007a5a;--c3:#a3487f;--c4:#856800;--c5:#22252b;--c6:#6b4fa0;--c7:#868c98}
@media(prefers-color-scheme:dark){:root{--fg:#e8eaed;--bg:#15171b;--soft:#a6adba;--line:#383d47;--fill:#23272f;
--c0:#56b4e9;--c1:#ff9d4d;--c2:#2ecc9b;--c3:#e58ec0;--c4:#f0e442;--c5:#f4f4f4;--c6:#b9a2ec;--c7:#8b93a1}}
*{box-sizing:border-box} [hidden]{display:none!important}
body{font:16px/1.55 system-ui,sans-serif;color:var(--fg);background:var(--bg);margin:0 auto;max-width:78rem;
padding:1.25rem;overflow-wrap:anywhere}
h1{font-size:1.7rem;line-height:1.2} h2{font-size:1.25rem;margin-top:2.75rem} h1,h2,p{max-width:60rem}
nav ul,.legend{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.25rem 1rem}
a{color:var(--c0)} .wide{overflow-x:auto;max-width:100%} .tall{max-height:80vh}
table{border-collapse:separate;border-spacing:0;font-variant-numeric:tabular-nums;font-size:.875rem;
overflow-wrap:normal}
caption{text-align:left;color:var(--soft);padding:.25rem 0}
.note,#explained{color:var(--soft);font-size:.9rem}
th,td{padding:.35rem .6rem;border-bottom:1px solid var(--line)} td{text-align:right;white-space:nowrap}
td.text{text-align:left;white-space:normal;overflow-wrap:anywhere;min-width:12rem}
th{text-align:left;vertical-align:bottom;background:var(--bg)} thead th{position:sticky;top:0;z-index:1}
tbody th{position:sticky;left:0;white-space:nowrap;font-weight:500;vertical-align:top} td{vertical-align:top}
thead button{font:inherit;font-weight:600;color:inherit;background:none;border:0;padding:0;cursor:pointer;
text-align:left}
th[aria-sort=ascending] button::after{content:" \\2191"}
th[aria-sort=descending] button::after{content:" \\2193"}
input{font:inherit;padding:.2rem .5rem;color:inherit;background:var(--fill);border:1px solid var(--soft);
border-radius:4px} pre{white-space:pre-wrap;margin:0;background:var(--fill);padding:.75rem;font-size:.8rem}
::placeholder{color:var(--soft);opacity:1}
summary{cursor:pointer;padding:.25rem 0} :focus-visible{outline:2px solid var(--c1);outline-offset:2px}
svg{width:100%;height:auto;display:block} svg.narrow{display:none}
@media(max-width:44rem){svg.wider{display:none} svg.narrow{display:block} body{padding:.8rem}
tbody th{white-space:normal;min-width:7rem}}
.legend{gap:.35rem .5rem;margin:.5rem 0} .legend svg{display:inline-block;width:14px;vertical-align:-2px}
.legend button{font:inherit;font-size:.85rem;color:inherit;background:none;border:1px solid var(--line);
border-radius:1rem;padding:.1rem .6rem;cursor:pointer} .legend [aria-pressed=false]{color:var(--soft);
text-decoration:line-through} .legend [aria-pressed=false] svg{opacity:.25}
svg text{fill:var(--fg);font:12px system-ui,sans-serif} svg .small{font-size:10px;fill:var(--soft)}
.grid{stroke:var(--line)} .axis{stroke:var(--soft)} .rule{stroke:var(--soft);stroke-dasharray:4 4}
.line{fill:none;stroke-width:1.6} .dash1{stroke-dasharray:6 3} .dash2{stroke-dasharray:2 3}
.front{fill:none;stroke:var(--soft);stroke-dasharray:2 4;stroke-width:1.6}
.heat{fill:var(--c0);shape-rendering:crispEdges}
.bars{fill:var(--c0)} .figures{display:flex;flex-wrap:wrap;gap:1.5rem}
figure{margin:.5rem 0;max-width:100%;width:25rem} figcaption{font-size:.9rem}
.kept{fill:var(--fill);stroke:var(--line)} .dropped{fill:var(--c1)}
""" + "".join(f".s{i}{{stroke:var(--c{i})}}.f{i}{{fill:var(--c{i})}}" for i in range(COLORS))

SCRIPT = """
const all=(s,from=document)=>[...from.querySelectorAll(s)],board=document.getElementById('board');
if(board){const body=board.tBodies[0],heads=[...board.tHead.rows[0].cells],rows=()=>[...body.rows];
const key=(row,i)=>i?parseFloat(row.cells[i].dataset.value):row.cells[0].textContent;
const order=(a,b)=>typeof a==='string'?a.localeCompare(b,'en',{numeric:true}):a-b;
heads.forEach((head,i)=>head.firstChild.addEventListener('click',()=>{
const state=head.getAttribute('aria-sort'),up=state==='none'?i===0:state==='descending';
heads.forEach(h=>h.setAttribute('aria-sort','none'));head.setAttribute('aria-sort',up?'ascending':'descending');
rows().sort((a,b)=>{const x=key(a,i),y=key(b,i);
return Number.isNaN(x)||Number.isNaN(y)?Number.isNaN(x)-Number.isNaN(y):up?order(x,y):order(y,x)})
.forEach(row=>body.append(row))}));
const filter=document.getElementById('filter'),shown=document.getElementById('shown');
filter.addEventListener('input',()=>{const text=filter.value.toLowerCase().trim();
rows().forEach(row=>row.hidden=!row.textContent.toLowerCase().includes(text));
shown.textContent=filter.value?rows().filter(row=>!row.hidden).length+' of '+rows().length+' runs':''})}
all('.legend button').forEach(button=>button.addEventListener('click',()=>{
const name=button.dataset.series,on=button.getAttribute('aria-pressed')!=='true';
const meant=part=>name===undefined||part.dataset.series===name;
all('.legend button').filter(meant).forEach(b=>b.setAttribute('aria-pressed',on));
all('g[data-series]').filter(meant).forEach(g=>g.style.display=on?'':'none');
all('[data-every]').forEach(b=>b.setAttribute('aria-pressed',
all('[data-series]',b.closest('ul')).every(own=>own.getAttribute('aria-pressed')==='true')))}));
"""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""The browser itself makes sure that the page asks nobody for anything."""


def document(title: str, summary: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """The page.

    Args:
        title: its heading.
        summary: its first paragraph.
        sections: (anchor, heading, HTML), in order.
    """
    links = "".join(f'<li><a href="#{anchor}">{html.escape(name)}</a></li>' for anchor, name, _ in sections)
    nav = f'<nav aria-label="Sections"><ul>{links}</ul></nav>'
    parts = "".join(
        f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{html.escape(name)}</h2>{content}</section>'
        for anchor, name, content in sections
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<link rel="icon" href="data:,">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<header><h1>{html.escape(title)}</h1><p>{html.escape(summary)}</p></header>"
        f"{nav if len(sections) > 1 else ''}<main>{parts}</main>"
        f"<script>{SCRIPT}</script></body></html>\n"
    )
