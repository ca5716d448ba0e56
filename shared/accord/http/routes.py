"""The routes of an app, those of included routers too."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import Route


def iterate_routes(app: FastAPI) -> Iterator[Route]:
    """Every route in the order in which they are tried; no mounts."""
    for context in iter_route_contexts(app.routes):
        route = getattr(context, "route", context)
        if isinstance(route, Route):
            yield route


def find_methods(app: FastAPI, path: str) -> list[str]:
    """The methods that some route allows at a path: several routes share one, and Starlette names those of the first alone."""
    return sorted(
        {method for route in iterate_routes(app) if route.path_regex.match(path) for method in route.methods or ()}
    )
