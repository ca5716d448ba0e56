"""The guide to what-if and feedback can be used as it is written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import urlsplit

from accord.agreements.documents import read
from qualification.analysis.service.what_if import WhatIfWorker

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "what-if-and-feedback.md").read_text()
DEFINITION = (ROOT / "deploy" / "agreements" / "definition.yaml").read_bytes()


async def test_what_the_guide_shows_works(stack, auth, new_lead, day):
    content = read(DEFINITION, yaml_text=True).content
    await stack.activate(content)
    about = new_lead()
    await stack.apply_events(about.captured(day(0), employee_count=60), about.did("demo.requested", day(1)))
    decision = {"decision": "reject", "reason": "no-budget", "occurred_at": day(2).isoformat()}
    at = f"/v1/leads/{about.lead_id}/decisions"
    assert (await stack.http.post(at, json=decision, headers=auth("sales"))).status_code == 201

    (asked,) = re.findall(r'curl "\$QUALIFICATION(/v1/feedback[^"]+)"', GUIDE)
    events = (await stack.http.get(asked, headers=auth("sales"))).json()
    assert (events["total"]["rejected"], events["groups"][0]["by"]) == (1, {"source": "website"})
    assert events["total"]["reasons"][0]["title"] == "No budget this year"

    stricter = DEFINITION.replace(b"op: gte, value: 50}", b"op: gte, value: 80}", 1)
    headers = auth("marketing") | {"Content-Type": "application/yaml"}
    assert (await stack.http.post("/v1/definition/versions", content=stricter, headers=headers)).status_code == 201
    (path,) = re.findall(r"curl -X POST \$QUALIFICATION(\S+/what-if)", GUIDE)
    (question,) = re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)
    answer = await stack.http.post(path, json=json.loads(question), headers=auth("marketing"))
    assert answer.status_code == 202, answer.text
    assert (await stack.http.post(path, json={}, headers=auth("marketing"))).status_code == 202
    while await WhatIfWorker(stack.database, lambda: False).next_batch():
        pass
    location = urlsplit(answer.headers["location"]).path
    done = (await stack.http.get(location, headers=auth("sales"))).json()
    assert done["state"] == "done"
    assert {"total", "groups", "picks", "load", "decisions", "summary"} <= done["report"].keys()
    (listing,) = re.findall(r"`GET (/v1/what-ifs/\{id\}/leads\S+)`", GUIDE)
    rows = (await stack.http.get(listing.replace("{id}", done["what_if_id"]), headers=auth("sales"))).json()["items"]
    assert [(row["lead_id"], row["would_enter_at"]) for row in rows] == [(str(about.lead_id), None)]
    listed = (await stack.http.get("/v1/what-ifs", headers=auth("sales"))).json()["items"]
    assert [one["state"] for one in listed] == ["done", "done"]
