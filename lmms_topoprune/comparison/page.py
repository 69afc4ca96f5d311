"""The page around a report: its style in light and dark, and the few lines of script that sort the table."""

from __future__ import annotations

import html
from collections.abc import Sequence

# After Okabe and Ito: colors that people with color-vision deficiencies can tell apart.
STYLE = """
:root{color-scheme:light dark;--fg:#1a1c20;--bg:#fff;--soft:#5b6270;--line:#d8dce3;--fill:#eef0f4;
--c0:#0072b2;--c1:#d55e00;--c2:#007a5a;--c3:#a3487f;--c4:#8a6d00;--c5:#2f7fb8;--c6:#6b4fa0;--c7:#5b6270}
@media(prefers-color-scheme:dark){:root{--fg:#e8eaed;--bg:#15171b;--soft:#a6adba;--line:#383d47;--fill:#23272f;
--c0:#56b4e9;--c1:#ff9d4d;--c2:#2ecc9b;--c3:#e58ec0;--c4:#f0e442;--c5:#8ecdf2;--c6:#b9a2ec;--c7:#a6adba}}
*{box-sizing:border-box}
body{font:16px/1.55 system-ui,sans-serif;color:var(--fg);background:var(--bg);margin:0 auto;max-width:70rem;
padding:1.25rem}
h1{font-size:1.7rem;line-height:1.2} h2{font-size:1.25rem;margin-top:2.5rem}
nav ul,.legend{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.25rem 1rem}
a{color:var(--c0)} .wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem}
#explained{color:var(--soft);font-size:.9rem;max-width:60rem}
th,td{padding:.35rem .6rem;border-bottom:1px solid var(--line)} td{text-align:right;white-space:nowrap}
th{text-align:left;vertical-align:bottom} tbody th{white-space:nowrap}
thead button{font:inherit;font-weight:600;color:inherit;background:none;
border:0;padding:0;cursor:pointer;text-align:left}
th[aria-sort=ascending] button::after{content:" \\2191"}
th[aria-sort=descending] button::after{content:" \\2193"}
input{font:inherit;padding:.2rem .5rem;color:inherit;background:var(--fill);border:1px solid var(--soft);
border-radius:4px} pre{overflow-x:auto;background:var(--fill);padding:.75rem;font-size:.8rem}
summary{cursor:pointer;padding:.25rem 0} :focus-visible{outline:2px solid var(--c1);outline-offset:2px}
svg{width:100%;height:auto;display:block} .legend svg{display:inline-block;width:14px;vertical-align:-2px}
.wide>svg{min-width:34rem} svg text{fill:var(--fg);font:12px system-ui,sans-serif} svg .small{font-size:10px;
fill:var(--soft)} .grid{stroke:var(--line)} .axis{stroke:var(--soft)} .rule{stroke:var(--soft);
stroke-dasharray:4 4} .line{fill:none;stroke-width:1.8} .front .line{stroke-dasharray:2 4}
.heat{fill:var(--c0)} figure{display:inline-block;margin:.5rem 1rem .5rem 0;max-width:100%;width:25rem}
.kept{fill:var(--fill);stroke:var(--line)} .dropped{fill:var(--c1)}
""" + "".join(f".s{i}{{stroke:var(--c{i})}}.f{i}{{fill:var(--c{i})}}" for i in range(8))

SCRIPT = """
const board=document.getElementById('board'),body=board.tBodies[0],rows=()=>[...body.rows];
const value=(row,i)=>{const t=row.cells[i].textContent.replace('<','').trim(),n=parseFloat(t);
return t==='\\u2013'?-Infinity:isNaN(n)||i===0?t:n};
[...board.tHead.rows[0].cells].forEach((head,i)=>head.firstChild.addEventListener('click',()=>{
const up=head.getAttribute('aria-sort')==='descending';
[...board.tHead.rows[0].cells].forEach(h=>h.setAttribute('aria-sort','none'));
head.setAttribute('aria-sort',up?'ascending':'descending');
const order=(a,b)=>{const x=value(a,i),y=value(b,i);return x<y?-1:x>y?1:0};
rows().sort((a,b)=>up?order(a,b):order(b,a)).forEach(row=>body.append(row))}));
const filter=document.getElementById('filter'),shown=document.getElementById('shown');
filter.addEventListener('input',()=>{const t=filter.value.toLowerCase();
rows().forEach(row=>row.hidden=!row.textContent.toLowerCase().includes(t));
shown.textContent=t?rows().filter(row=>!row.hidden).length+' of '+rows().length+' runs':''});
"""


def document(title: str, summary: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """The page.

    Args:
        title: its heading.
        summary: its first paragraph.
        sections: (anchor, heading, HTML), in order.
    """
    links = "".join(f'<li><a href="#{anchor}">{html.escape(name)}</a></li>' for anchor, name, _ in sections)
    parts = "".join(
        f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{html.escape(name)}</h2>{content}</section>'
        for anchor, name, content in sections
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<header><h1>{html.escape(title)}</h1><p>{html.escape(summary)}</p></header>"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav><main>{parts}</main>'
        f"<script>{SCRIPT}</script></body></html>\n"
    )
