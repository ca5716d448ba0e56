"""The contract for import-linter that allows some imports and no others."""

from collections.abc import Iterable

import pytest
from grimp import ImportGraph

from accord_local.import_rules import OnlyContract


def excess(imports: Iterable[tuple[str, str]], sources: list[str], allowed: list[str]) -> list[str]:
    """What the contract complains about in code with these imports."""
    graph = ImportGraph()
    for importer, imported in imports:
        for name in (importer, imported):
            parts = name.split(".")
            for number in range(1, len(parts) + 1):
                graph.add_module(".".join(parts[:number]))
        graph.add_import(importer=importer, imported=imported)
    options = {"source_modules": sources, "may_import": allowed}
    contract = OnlyContract("only", {"root_packages": ["shop", "bank"]}, options)
    check = contract.check(graph, verbose=False)
    found: list[str] = check.metadata["excess"]
    assert check.kept == (not found)
    return found


@pytest.mark.parametrize(
    "imported",
    [
        "json",
        "shop.cart.domain",
        "shop.cart.domain.prices",
        "shop.till.domain.coins",
        "bank.values",
        "bank.values.money",
    ],
)
def test_what_is_listed_may_be_imported(imported):
    assert not excess([("shop.cart.domain.total", imported)], ["shop.*.domain"], ["bank.values", "shop.*.domain"])


@pytest.mark.parametrize(
    "imported",
    [
        "orjson",
        "shop",
        "shop.cart",
        "shop.cart.queries",
        "shop.domain",
        "shop.till.deep.domain",
        "shop.cart.domains",
        "bank",
    ],
)
def test_what_is_not_listed_may_not(imported):
    found = excess([("shop.cart.domain.total", imported)], ["shop.*.domain"], ["bank.values", "shop.*.domain"])
    assert found == [f"shop.cart.domain.total imports {imported}"]


def test_a_star_is_one_part_of_a_source_as_well():
    imports = [
        (f"shop.{name}", "orjson") for name in ("cart.domain", "till.domain.coins", "cart.api", "cart.deep.domain")
    ]
    imports.append(("shop.till.domain", "json"))
    assert excess(imports, ["shop.*.domain"], []) == [
        "shop.cart.domain imports orjson",
        "shop.till.domain.coins imports orjson",
    ]


def test_a_star_alone_allows_what_is_not_ours():
    imports = [("shop.cart", "orjson"), ("shop.cart", "bank.values"), ("shop.cart", "shop.till")]
    assert excess(imports, ["shop.cart"], ["*"]) == ["shop.cart imports bank.values", "shop.cart imports shop.till"]


def test_a_source_that_does_not_exist_is_passed_over():
    assert not excess([("shop.cart", "orjson")], ["shop.attic", "shop.*.attic"], [])
