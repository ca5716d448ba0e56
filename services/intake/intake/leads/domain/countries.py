"""Countries by ISO 3166-1, so that "US", "usa" and "United States" are one value. It knows codes and English names and nothing else.

The table is ISO 3166-1 as of 2026, with names in common use beside the official ones (after =). Kosovo's XK is a user-assigned code that
most tools use. It is kept here and not taken from a library because it changes every few years, and because the domain imports none.
"""

from __future__ import annotations

import unicodedata
from difflib import get_close_matches
from functools import lru_cache

_TABLE = """\
AD AND Andorra; AE ARE United Arab Emirates = UAE; AF AFG Afghanistan; AG ATG Antigua and Barbuda; AI AIA Anguilla;
AL ALB Albania; AM ARM Armenia; AO AGO Angola; AQ ATA Antarctica; AR ARG Argentina; AS ASM American Samoa; AT AUT
Austria; AU AUS Australia; AW ABW Aruba; AX ALA Åland Islands; AZ AZE Azerbaijan; BA BIH Bosnia and Herzegovina; BB
BRB Barbados; BD BGD Bangladesh; BE BEL Belgium; BF BFA Burkina Faso; BG BGR Bulgaria; BH BHR Bahrain; BI BDI
Burundi; BJ BEN Benin; BL BLM Saint Barthélemy; BM BMU Bermuda; BN BRN Brunei Darussalam = Brunei; BO BOL Bolivia;
BQ BES Bonaire, Sint Eustatius and Saba = Caribbean Netherlands; BR BRA Brazil; BS BHS Bahamas; BT BTN Bhutan; BV
BVT Bouvet Island; BW BWA Botswana; BY BLR Belarus; BZ BLZ Belize; CA CAN Canada; CC CCK Cocos Islands; CD COD
Democratic Republic of the Congo = DR Congo = Congo-Kinshasa; CF CAF Central African Republic; CG COG Congo; CH CHE
Switzerland; CI CIV Côte d'Ivoire = Ivory Coast; CK COK Cook Islands; CL CHL Chile; CM CMR Cameroon; CN CHN China =
People's Republic of China; CO COL Colombia; CR CRI Costa Rica; CU CUB Cuba; CV CPV Cabo Verde = Cape Verde; CW CUW
Curaçao; CX CXR Christmas Island; CY CYP Cyprus; CZ CZE Czechia = Czech Republic; DE DEU Germany; DJ DJI Djibouti;
DK DNK Denmark; DM DMA Dominica; DO DOM Dominican Republic; DZ DZA Algeria; EC ECU Ecuador; EE EST Estonia; EG EGY
Egypt; EH ESH Western Sahara; ER ERI Eritrea; ES ESP Spain; ET ETH Ethiopia; FI FIN Finland; FJ FJI Fiji; FK FLK
Falkland Islands = Malvinas; FM FSM Micronesia = Federated States of Micronesia; FO FRO Faroe Islands; FR FRA
France; GA GAB Gabon; GB GBR United Kingdom of Great Britain and Northern Ireland = United Kingdom = UK = Great
Britain; GD GRD Grenada; GE GEO Georgia; GF GUF French Guiana; GG GGY Guernsey; GH GHA Ghana; GI GIB Gibraltar; GL
GRL Greenland; GM GMB Gambia; GN GIN Guinea; GP GLP Guadeloupe; GQ GNQ Equatorial Guinea; GR GRC Greece = EL; GS SGS
South Georgia and the South Sandwich Islands; GT GTM Guatemala; GU GUM Guam; GW GNB Guinea-Bissau; GY GUY Guyana; HK
HKG Hong Kong; HM HMD Heard Island and McDonald Islands; HN HND Honduras; HR HRV Croatia; HT HTI Haiti; HU HUN
Hungary; ID IDN Indonesia; IE IRL Ireland = Republic of Ireland; IL ISR Israel; IM IMN Isle of Man; IN IND India; IO
IOT British Indian Ocean Territory; IQ IRQ Iraq; IR IRN Iran = Islamic Republic of Iran; IS ISL Iceland; IT ITA
Italy; JE JEY Jersey; JM JAM Jamaica; JO JOR Jordan; JP JPN Japan; KE KEN Kenya; KG KGZ Kyrgyzstan; KH KHM Cambodia;
KI KIR Kiribati; KM COM Comoros; KN KNA Saint Kitts and Nevis; KP PRK Democratic People's Republic of Korea = North
Korea; KR KOR Republic of Korea = South Korea; KW KWT Kuwait; KY CYM Cayman Islands; KZ KAZ Kazakhstan; LA LAO Lao
People's Democratic Republic = Laos; LB LBN Lebanon; LC LCA Saint Lucia; LI LIE Liechtenstein; LK LKA Sri Lanka; LR
LBR Liberia; LS LSO Lesotho; LT LTU Lithuania; LU LUX Luxembourg; LV LVA Latvia; LY LBY Libya; MA MAR Morocco; MC
MCO Monaco; MD MDA Moldova = Republic of Moldova; ME MNE Montenegro; MF MAF Saint Martin; MG MDG Madagascar; MH MHL
Marshall Islands; MK MKD North Macedonia = Macedonia; ML MLI Mali; MM MMR Myanmar = Burma; MN MNG Mongolia; MO MAC
Macao = Macau; MP MNP Northern Mariana Islands; MQ MTQ Martinique; MR MRT Mauritania; MS MSR Montserrat; MT MLT
Malta; MU MUS Mauritius; MV MDV Maldives; MW MWI Malawi; MX MEX Mexico; MY MYS Malaysia; MZ MOZ Mozambique; NA NAM
Namibia; NC NCL New Caledonia; NE NER Niger; NF NFK Norfolk Island; NG NGA Nigeria; NI NIC Nicaragua; NL NLD
Netherlands = Holland; NO NOR Norway; NP NPL Nepal; NR NRU Nauru = Naoero; NU NIU Niue; NZ NZL New Zealand; OM OMN
Oman; PA PAN Panama; PE PER Peru; PF PYF French Polynesia; PG PNG Papua New Guinea; PH PHL Philippines; PK PAK
Pakistan; PL POL Poland; PM SPM Saint Pierre and Miquelon; PN PCN Pitcairn; PR PRI Puerto Rico; PS PSE Palestine =
State of Palestine; PT PRT Portugal; PW PLW Palau; PY PRY Paraguay; QA QAT Qatar; RE REU Réunion; RO ROU Romania; RS
SRB Serbia; RU RUS Russian Federation = Russia; RW RWA Rwanda; SA SAU Saudi Arabia; SB SLB Solomon Islands; SC SYC
Seychelles; SD SDN Sudan; SE SWE Sweden; SG SGP Singapore; SH SHN Saint Helena, Ascension and Tristan da Cunha =
Saint Helena; SI SVN Slovenia; SJ SJM Svalbard and Jan Mayen; SK SVK Slovakia; SL SLE Sierra Leone; SM SMR San
Marino; SN SEN Senegal; SO SOM Somalia; SR SUR Suriname; SS SSD South Sudan; ST STP Sao Tome and Principe; SV SLV El
Salvador; SX SXM Sint Maarten; SY SYR Syrian Arab Republic = Syria; SZ SWZ Eswatini = Swaziland; TC TCA Turks and
Caicos Islands; TD TCD Chad; TF ATF French Southern Territories; TG TGO Togo; TH THA Thailand; TJ TJK Tajikistan; TK
TKL Tokelau; TL TLS Timor-Leste = East Timor; TM TKM Turkmenistan; TN TUN Tunisia; TO TON Tonga; TR TUR Türkiye =
Turkey; TT TTO Trinidad and Tobago; TV TUV Tuvalu; TW TWN Taiwan; TZ TZA Tanzania = United Republic of Tanzania; UA
UKR Ukraine; UG UGA Uganda; UM UMI United States Minor Outlying Islands; US USA United States of America = United
States; UY URY Uruguay; UZ UZB Uzbekistan; VA VAT Holy See = Vatican City = Vatican; VC VCT Saint Vincent and the
Grenadines; VE VEN Venezuela; VG VGB British Virgin Islands; VI VIR US Virgin Islands = Virgin Islands; VN VNM Viet
Nam = Vietnam; VU VUT Vanuatu; WF WLF Wallis and Futuna; WS WSM Samoa; XK XKX Kosovo; YE YEM Yemen; YT MYT Mayotte;
ZA ZAF South Africa; ZM ZMB Zambia; ZW ZWE Zimbabwe
"""


def _simplify(text: str) -> str:
    """Letters only, without accents, case, articles and what joins words."""
    plain = unicodedata.normalize("NFKD", text.casefold()).replace("&", " and ")
    words = "".join(c if c.isalnum() else " " if c.isspace() or c == "-" else "" for c in plain).split()
    return "".join(word for word in words if len(words) == 1 or word not in ("the", "and"))  # AND is Andorra


_CODE_MAX = 3
"""Letters; a longer name is none."""


def _read_table() -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Code → alpha-2, and the names with their alpha-2, the official one of each first."""
    codes: dict[str, str] = {}
    names: list[tuple[str, str]] = []
    for row in _TABLE.replace("\n", " ").split(";"):
        alpha_2, alpha_3, given = row.split(maxsplit=2)
        for name in (alpha_2, alpha_3, *map(str.strip, given.split("="))):
            if len(name) <= _CODE_MAX:
                codes[name] = alpha_2
            else:
                names.append((name, alpha_2))
    return codes, names


_CODES, _SPELT = _read_table()
_NAMES = {_simplify(name): alpha_2 for name, alpha_2 in _SPELT}
_DOTTED = {"u.s": "US", "u.s.a": "US", "u.k": "GB", "u.a.e": "AE"}
"""Codes that people write with points. Of others, points say that it is none: `N.A.` is not Namibia."""
COUNTRIES = frozenset(_CODES.values())
"""Every alpha-2 code."""

_TEXT_MAX = 100
_SUGGESTED_FROM, _SUGGESTED_TO = 4, 50
"""Letters of a text that could be nearly a country."""
_SUGGESTIONS_MAX = 3
_ALIKE_MIN = 0.8


def country_code(text: str) -> str | None:
    """The alpha-2 code of a country given by its code (alpha-2, alpha-3) or English name; None if it is none. A code is letters that were
    written together, so `N/A` is none."""
    found = _CODES.get(text)  # as most senders write it
    if found is None and len(text) <= _TEXT_MAX:
        bare = text.strip()
        found = _CODES.get(bare.upper()) or _NAMES.get(_simplify(bare)) or _DOTTED.get(bare.casefold().rstrip("."))
    return found


@lru_cache(maxsize=1_000)
def suggest_countries(text: str) -> tuple[str, ...]:
    """Countries that a text which is none could mean: those in whose names it stands as a word, else those spelt much like it."""
    if not _SUGGESTED_FROM <= len(text) <= _SUGGESTED_TO:
        return ()
    word = text.strip().casefold()
    found = [code for name, code in _SPELT if word in name.casefold().split()]
    found = found or [_NAMES[name] for name in get_close_matches(_simplify(text), _NAMES, _SUGGESTIONS_MAX, _ALIKE_MIN)]
    official = {code: name for name, code in reversed(_SPELT)}
    return tuple(f"{official[code]} ({code})" for code in dict.fromkeys(found))[:_SUGGESTIONS_MAX]
