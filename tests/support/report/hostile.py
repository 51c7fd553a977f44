"""Evidence made to harm whoever looks at it."""

from __future__ import annotations

import json
from typing import Any

TRICKS = (
    "</script><script>window.harmed=1</script>",
    "</script x><img src=x onerror=window.harmed=1>",
    "<img src=x onerror=window.harmed=1>",
    '"><svg onload=window.harmed=1>',
    "' onmouseover='window.harmed=1",
    "<!--<script>window.harmed=1",
    "</style></title></textarea></noscript><iframe srcdoc='<script>parent.harmed=1</script>'>",
    "{{ 7 * 7 }}{% include '/etc/passwd' %}${7*7}",
    "javascript:window.harmed=1",
    "data:text/html,<script>parent.harmed=1</script>",
    "<a href='javascript:window.harmed=1'>click</a><base href='//evil.example.com/'>",
    "<meta http-equiv=refresh content='0;url=https://evil.example.com/'>",
    "<link rel=stylesheet href=https://evil.example.com/x.css><style>*{display:none}</style>",
    "annexe\u202efdp.exe\u2066\u200b\u2028\x1b[31m\x00",
    "\\u003cscript\\u003ewindow.harmed=1\\u003c/script\\u003e",
    "__proto__",
    "constructor",
    "W" * 5000,
)
FORMULAS = ('=HYPERLINK("https://evil.example.com")', "+1", "-1+1", "@SUM(1)", " =1+1", "\uff1d1")
FIELDS = ("url", "path", "key", "name", "host", "ip", "sha256", "rule", "note")


def report(number: int, trick: str, scope: str = "THREAT") -> dict[str, Any]:
    """The trick stands wherever a text can stand, names of fields among them."""
    item = {
        "type": trick,
        "display": trick,
        "engine": trick,
        "malicious": True,
        "note": trick,
        trick: trick,
        "what": dict.fromkeys(FIELDS, trick) | {trick: [trick, {trick: trick}]},
        "platforms": [{"name": trick, "os": trick, "version": trick}],
    }
    known = [{**item, "type": kind} for kind in ("url", "file", "registry", "mutex", "screenshot")]
    return {
        "scope": scope,
        "id": f"{number} {trick}",
        "name": trick,
        "threatStatus": trick,
        "_threatId": f"{number} {trick}",
        "_campaignId": trick,
        "generated": trick if number % 2 else "2026-03-04T10:00:00Z",
        "forensics": [item, *known, trick, None],
    }


def event(number: int, trick: str) -> dict[str, Any]:
    threat = {
        "threatID": f"{number} {trick}",
        "campaignID": trick,
        "classification": trick,
        "threatStatus": trick,
    }
    return {"messagesDelivered": [{"messageTime": "2026-03-04T09:00:00Z", "threatsInfoMap": [threat, trick]}]}


def lines() -> bytes:
    documents: list[dict[str, Any]] = []
    for number, trick in enumerate((*TRICKS, *FORMULAS)):
        documents += [report(number, trick), report(number, trick, "CAMPAIGN"), event(number, trick)]
    return b"".join(json.dumps(document).encode() + b"\n" for document in documents)
