"""`/docs`: the HTTP interface to read and to try, with scripts and styles from a package, since a company's network need not reach a CDN;
`/` leads there. Addresses are relative, so that both work below a proxy's path."""

from __future__ import annotations

from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

_ASSETS = "docs/assets"


def document_pages(title: str) -> list[BaseRoute]:
    """The routes of the pages of a service."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=title,
        swagger_js_url=f"{_ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{_ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{_ASSETS}/favicon.png",
    )

    async def get_page(_: Request) -> Response:
        return page

    async def redirect_to_docs(_: Request) -> Response:
        return RedirectResponse("docs")

    return [
        Route("/", redirect_to_docs),
        Route("/docs", get_page),
        Mount(f"/{_ASSETS}", StaticFiles(packages=[("fastapi_offline", "static")])),
    ]
