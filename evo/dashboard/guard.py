"""Who may ask the dashboard anything, and what every answer says about itself."""

from __future__ import annotations

import ipaddress
import secrets
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from evo.dashboard.render import THEME_HASH

COOKIE = "evo_token"
# Plotly writes style attributes. Scripts are files of ours and Plotly's, and the one in the head that sets the theme.
POLICY = (
    f"default-src 'self'; script-src 'self' 'sha256-{THEME_HASH}'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


class Guard:
    """Turns away whom the token or the host's name does not let in; adds headers to every answer.

    An application around the application rather than a function of FastAPI's: those cost a task for every chunk.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, loopback: bool) -> None:
        self.app, self.token, self.loopback = app, token, loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        refused = self._refusal(request)
        if refused is not None:
            await refused(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._add_headers(request, MutableHeaders(scope=message))
            await send(message)

        await self.app(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        if self.loopback and not names_loopback(request):
            # A page elsewhere whose name was made to point here must not read this database.
            return Response("This dashboard answers to localhost only.", status_code=421)
        if self.token is not None and not has_token(request, self.token):
            return Response("Open the address with ?token=... that `evo dashboard` printed.", status_code=401)
        return None

    def _add_headers(self, request: Request, headers: MutableHeaders) -> None:
        if self.token is not None and "token" in request.query_params:
            cookie = Response()
            cookie.set_cookie(COOKIE, self.token, httponly=True, samesite="strict")
            headers.append("Set-Cookie", cookie.headers["set-cookie"])
        headers["Content-Security-Policy"] = POLICY
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Referrer-Policy"] = "no-referrer"
        # Addresses of scripts carry their version, so that they may be kept; facts may have changed by the next look.
        kept = request.url.path.startswith("/static") and request.url.query
        headers.setdefault("Cache-Control", "max-age=31536000, immutable" if kept else "no-store")


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach a server on this host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def names_loopback(request: Request) -> bool:
    """Whether the request was addressed to this machine by a name of its own."""
    name = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    return is_loopback(name) or name == "testserver"


def has_token(request: Request, token: str) -> bool:
    """Whether the request shows the token: in its address, its cookie or as a bearer."""
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
    given = (request.query_params.get("token"), request.cookies.get(COOKIE), bearer)
    return any(secrets.compare_digest(item.encode(), token.encode()) for item in given if item)
