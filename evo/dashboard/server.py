"""The dashboard's application and its server: who may connect, what goes wrong, in words on a page."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from evo import __version__
from evo.dashboard import api, pages
from evo.dashboard.guard import Guard, is_loopback
from evo.dashboard.store import Store
from evo.errors import InputError


def announce(address: str) -> None:
    print(f"Evo dashboard on {address}  (Ctrl-C ends it)", flush=True)


def serve(
    db_url: str | Path = "results.db",
    host: str = "127.0.0.1",
    port: int = 8421,
    token: str | None = None,
    *,
    say: Callable[[str], None] = announce,
) -> None:
    """Serve the dashboard until Ctrl-C. Port 0 takes any free one; a taken port is an InputError.

    say: called once with the address to open.
    token: needed for any host beyond loopback; whoever opens ADDRESS/?token=TOKEN is let in.
    Raises: InputError.
    """
    import uvicorn

    check_host(host, token)
    listener = _listen(host, port)
    address = listener.getsockname()
    shown = f"[{address[0]}]" if ":" in address[0] else address[0]
    say(f"http://{shown}:{address[1]}/{f'?token={token}' if token else ''}")
    app = make_app(db_url, token=token, loopback=is_loopback(host))
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    finally:
        listener.close()


def check_host(host: str, token: str | None) -> None:
    """Raises: InputError for a host beyond loopback without a token."""
    if token is not None and len(token) < 8:
        raise InputError("--token: expected at least 8 characters")
    if not is_loopback(host) and not token:
        raise InputError(f"--host {host}: others could connect; set --token as well, or use 127.0.0.1")


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port < 65536:
        raise InputError(f"--port {port}: expected 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except (OSError, OverflowError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise InputError(f"--host {host} --port {port}: cannot listen there: {words}") from None
    return listener


def make_app(db_url: str | Path, *, token: str | None = None, loopback: bool = True) -> FastAPI:
    """The application over one database; opens it at the first request."""
    store = Store(db_url)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        warming = asyncio.create_task(run_in_threadpool(warm, store))
        await asyncio.wait([warming], timeout=5)  # longer only where the file is locked: then the page says so
        yield
        store.close()

    app = FastAPI(
        title="Evo",
        version=__version__,
        description="Facts of results.db, read-only.",
        openapi_url="/api/openapi.json",
        docs_url=None,  # FastAPI's own pages load scripts from a CDN; ours is /api/docs
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.store = store
    app.include_router(api.router, prefix="/api")
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")
    _handle_errors(app)

    app.add_middleware(Guard, token=token, loopback=loopback)
    return app


def warm(store: Store) -> None:
    """Read and render the first page before anyone asks: what is slow the first time is then done."""
    with contextlib.suppress(InputError):  # no such database yet, or one that cannot be read: the page will say so
        pages.campaigns_html(store)


def _handle_errors(app: FastAPI) -> None:
    """Every error is a page with a way back, or JSON under /api."""

    def answer(request: Request, status: int, title: str, message: str) -> Response:
        if request.url.path.startswith("/api"):
            return JSONResponse({"error": message}, status_code=status)
        return pages.error_page(request, status, title, message)

    @app.exception_handler(InputError)
    def input_error(request: Request, error: InputError) -> Response:
        missing = ": no campaign " in str(error) or ": no variant " in str(error) or ": no trial " in str(error)
        if missing or ": no elite" in str(error):
            return answer(request, 404, "Not here", str(error))
        return answer(request, 503, "The database cannot be read", str(error))

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> Response:
        title = "Not here" if error.status_code == 404 else "That did not work"
        message = f"{request.url.path}: no such page" if error.detail == "Not Found" else str(error.detail)
        return answer(request, error.status_code, title, message)

    @app.exception_handler(RequestValidationError)
    def bad_request(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return answer(request, 404 if first["loc"][0] == "path" else 400, "Not here", f"{where}: {first['msg']}")
