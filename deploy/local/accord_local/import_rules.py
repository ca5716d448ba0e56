"""A contract for import-linter: some modules may import *only* what is listed, whatever else there is or will be."""

import sys
from typing import cast

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class OnlyContract(Contract):
    """Each of `source_modules` and below may directly import itself, the standard library and `may_import`, no more.

    In a name, `*` is any one part: `intake.*.domain`. Alone in `may_import` it allows everything that is not ours. A source module
    that does not exist yet is passed over.
    """

    type_name = "only"

    source_modules = fields.ListField(subfield=fields.StringField())
    may_import = fields.ListField(subfield=fields.StringField(), required=False, default=[])

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Collect every direct import that no rule allows."""
        ours = {str(name) for name in self.session_options["root_packages"]}
        excess: list[str] = []
        extra = cast("list[str] | None", self.may_import) or []
        sources = [graph.find_matching_modules(name) for name in cast("list[str]", self.source_modules)]
        for source in sorted(set().union(*sources)):
            allowed = [source, *extra]
            for module in sorted({source, *graph.find_descendants(source)}):
                imports = sorted(graph.find_modules_directly_imported_by(module))
                excess += [f"{module} imports {name}" for name in imports if not _allowed(name, allowed, ours)]
        return ContractCheck(kept=not excess, metadata={"excess": excess})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """One line for each import that is too much."""
        for line in check.metadata["excess"]:
            output.print_error(f"- {line}")


def _allowed(imported: str, allowed: list[str], ours: set[str]) -> bool:
    root = imported.split(".", 1)[0]
    if root in sys.stdlib_module_names or ("*" in allowed and root not in ours):
        return True
    return any(_is_within(imported.split("."), name.split(".")) for name in allowed if name != "*")


def _is_within(module: list[str], package: list[str]) -> bool:
    return len(module) >= len(package) and all(
        named in (part, "*") for part, named in zip(module, package, strict=False)
    )
