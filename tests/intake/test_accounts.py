"""Companies: by which domain they are known, and who belongs to them."""

from __future__ import annotations

from typing import Any

import pytest
from tests.intake.conftest import Running

from intake.leads.service.normalization import find_account_domain, parse_company_domain


@pytest.mark.parametrize(
    "spelling",
    [
        "initech.co.uk",
        "INITECH.CO.UK.",
        "eu.initech.co.uk",
        "www.initech.co.uk",
        "https://www.initech.co.uk/about?ref=1",
        "http://ada@initech.co.uk:8080/",
        "@initech.co.uk",
    ],
)
def test_any_spelling_of_domain_finds_registered_domain(spelling: str) -> None:
    assert parse_company_domain(spelling) == "initech.co.uk"


@pytest.mark.parametrize(
    "domain",
    [
        "gmail.com",
        "mail.gmail.com",
        "yahoo.co.jp",
        "gmx.de",
        "mailinator.com",
        "co.uk",
        "",
        "..",
        "localhost",
        "a" * 300,
    ],
)
def test_domains_where_anybody_can_have_an_address_are_no_company(domain: str) -> None:
    assert parse_company_domain(domain) is None
    assert find_account_domain(None, domain or None) is None


@pytest.mark.parametrize(
    "page",
    [
        "shop1.myshopify.com",
        "https://shop2.myshopify.com/products",
        "myshopify.com",
        "ada.github.io",
        "acme.blogspot.com",
        "acme.netlify.app",
        "acme.vercel.app",
        "acme.wixsite.com/home",
        "acme.webflow.io",
        "acme.herokuapp.com",
        "acme.wordpress.com",
        "acme.jimdosite.com",
        "acme.square.site",
        "https://sites.google.com/view/acme",
        "https://forms.gle/abc",
        "https://www.linkedin.com/company/acme",
        "de.linkedin.com/in/ada",
        "https://www.facebook.com/acme",
        "m.facebook.com/acme",
        "instagram.com/acme",
        "https://x.com/acme",
        "wa.me/12025550177",
        "t.me/acme",
        "https://bit.ly/3acme",
        "linktr.ee/acme",
        "youtu.be/abc",
    ],
)
def test_page_on_a_platform_is_no_company_and_the_address_decides(page: str) -> None:
    assert find_account_domain(page, None) is None
    assert find_account_domain(page, "gmail.com") is None
    assert find_account_domain(page, "mail.initech.co.uk") == "initech.co.uk"


def test_who_works_at_a_platform_is_of_its_company() -> None:
    assert find_account_domain("linkedin.com", "linkedin.com") == parse_company_domain("linkedin.com") == "linkedin.com"
    assert find_account_domain("https://www.shopify.com/careers", "shopify.com") == "shopify.com"
    assert find_account_domain("initech.com", "linkedin.com") == "initech.com"
    assert find_account_domain("google.com", None) == "google.com"


async def test_two_shops_of_one_platform_are_two_companies(accord: Running) -> None:
    for number in (1, 2):
        lead = {
            "source": "shops",
            "email": f"owner@shop{number}.example",
            "domain": f"shop{number}.myshopify.com",
            "company": f"Shop {number}",
        }
        assert (await accord.marketing.post("/v1/leads", lead)).status_code == 201
        found = await account(accord, f"shop{number}.example")
        assert (found["name"], found["leads"]) == (f"Shop {number}", 1)
    assert (await accord.marketing.get("/v1/accounts", domain="myshopify.com")).json()["items"] == []


def test_a_domain_in_its_own_script_and_in_idna_are_one() -> None:
    assert parse_company_domain("müller.de") == parse_company_domain("xn--mller-kva.de") == "xn--mller-kva.de"


async def account(accord: Running, domain: str) -> dict[str, Any]:
    answer = await accord.marketing.get("/v1/accounts", domain=domain)
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["items"]
    return dict(found)


async def test_leads_of_one_company_are_one_account_from_either_domain(accord: Running) -> None:
    rows = [
        {"source": "a", "email": "ada@eu.initech.co.uk", "company": "Initech"},
        {"source": "a", "email": "bob@gmail.com", "domain": "https://initech.co.uk", "company": "Initech Ltd"},
        {"source": "a", "email": "eve@gmail.com"},
        {"source": "a", "email": "joe@hooli.example"},
    ]
    results = (await accord.marketing.post("/v1/leads:batch", rows)).json()["results"]
    found = await account(accord, "www.initech.co.uk")
    assert (found["domain"], found["name"], found["leads"]) == ("initech.co.uk", "Initech", 2)
    assert (await accord.marketing.get(f"/v1/accounts/{found['account_id']}")).json() == found
    page = (await accord.marketing.get(f"/v1/accounts/{found['account_id']}/leads", limit="1")).json()
    rest = (await accord.marketing.get(f"/v1/accounts/{found['account_id']}/leads", cursor=page["next_cursor"])).json()
    listed = page["items"] + rest["items"]
    assert {lead["lead_id"] for lead in listed} == {row["lead_id"] for row in results[:2]}
    assert listed[0] == (await accord.marketing.get(f"/v1/leads/{listed[0]['lead_id']}")).json()
    assert rest["next_cursor"] is None
    assert (await accord.marketing.get("/v1/accounts", domain="gmail.com")).json()["items"] == []
    assert (await accord.marketing.get("/v1/accounts", domain="pied-piper.example")).json()["items"] == []


async def test_the_domain_and_name_of_a_company_are_shown_to_those_who_may_see_persons(accord: Running) -> None:
    await accord.marketing.post("/v1/leads", {"source": "a", "email": "ada@initech.example", "company": "Initech"})
    public = accord.caller("public")
    (found,) = (await public.get("/v1/accounts", domain="initech.example")).json()["items"]
    assert (found["domain"], found["name"], found["leads"]) == (None, None, 1)
    (lead,) = (await public.get(f"/v1/accounts/{found['account_id']}/leads")).json()["items"]
    assert lead["person"] is None


async def test_a_company_that_is_learnt_later_attaches_the_lead_and_its_name_follows(accord: Running) -> None:
    first = {"source": "a", "email": "ada@gmail.com", "external_id": "7"}
    lead = (await accord.marketing.post("/v1/leads", first)).json()["lead_id"]
    assert (await accord.marketing.get(f"/v1/leads/{lead}")).json()["account_id"] is None
    await accord.marketing.post("/v1/leads", {"source": "a", "external_id": "7", "email": "ada@initech.example"})
    found = await account(accord, "initech.example")
    assert (await accord.marketing.get(f"/v1/leads/{lead}")).json()["account_id"] == found["account_id"]
    assert (found["name"], found["leads"]) == (None, 1)
    (event,) = await accord.events("lead.updated.v1")
    assert event["state"]["account_id"] == found["account_id"]
    await accord.marketing.post("/v1/leads", {**first, "company": "Initech"})
    assert (await account(accord, "initech.example"))["name"] == "Initech"


async def test_merged_leads_count_once(accord: Running) -> None:
    rows = [{"source": "a", "email": f"p{number}@initech.example"} for number in range(3)]
    ids = [row["lead_id"] for row in (await accord.marketing.post("/v1/leads:batch", rows)).json()["results"]]
    (await accord.marketing.post(f"/v1/leads/{ids[0]}/merge", {"with": ids[1]})).raise_for_status()
    assert (await account(accord, "initech.example"))["leads"] == 2


async def test_what_is_no_account_is_404_and_what_is_no_text_is_refused(accord: Running) -> None:
    nobody = "019f3b1e-7a52-7c31-9a55-8a4f3c1d2e10"
    for path in (f"/v1/accounts/{nobody}", f"/v1/accounts/{nobody}/leads"):
        assert (await accord.marketing.get(path)).status_code == 404
    assert (await accord.marketing.get("/v1/accounts")).status_code == 422
    assert (await accord.marketing.get("/v1/accounts", domain="\x00")).status_code == 400
