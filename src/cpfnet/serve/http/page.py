"""The page at ``/``: what runs, and where the API is."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import cpfnet
from cpfnet.serve.http.models import Served
from cpfnet.text import printable

STYLE = (
    "body{font:16px sans-serif;max-width:50em;margin:2em auto;padding:0 1em}td,th{text-align:left;padding:0 1em 0 0}"
)


def page(models: Sequence[Served], address: str) -> str:
    """One HTML page without scripts."""
    rows = "".join(
        f"<tr><td>{_text(one.id)}</td><td>{_text(one.model.plan.in_short)}</td>"
        f"<td>{_text(', '.join(label.name for label in one.model.plan.labels.classes))}</td></tr>"
        for one in models
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>cpfnet</title><style>{STYLE}</style>
<h1>cpfnet {_text(cpfnet.__version__)}</h1>
<p>This server segments medical images. It runs on this machine, and sends nothing elsewhere.</p>
<table><tr><th>Model</th><th>what it is</th><th>finds</th></tr>{rows}</table>
<h2>API</h2>
<pre>curl --data-binary @scan.nii.gz "{_text(address)}/api/v1/jobs?name=scan.nii.gz&amp;wait=60"</pre>
<p><a href="/api/v1/openapi.json">/api/v1/openapi.json</a> describes all of it;
<a href="/api/v1/models">/api/v1/models</a> lists the Models.</p>
</html>
"""


def _text(text: str) -> str:
    return escape(printable(text))
