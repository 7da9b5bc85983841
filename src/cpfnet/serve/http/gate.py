"""Who may come in: names that this server goes by, pages of its own, and whoever knows the token.

A page of somebody else that a browser of this machine shows can send requests here, under another name, too (DNS
rebinding). Its requests carry the Host that they were sent to, the Origin that they come from, and Sec-Fetch-Site;
no page can change these.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from base64 import b64encode
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cpfnet.errors import redacted_message
from cpfnet.serve.http.page import STYLE
from cpfnet.serve.http.problems import problem, unexpected

logger = logging.getLogger(__name__)

OPEN = ("/health/live", "/health/ready")
"""What tells nothing but whether the server runs."""

_STYLE = b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""Of every answer."""


class Gate:
    """Stands before an app.

    Args:
        app: what lies behind it.
        port: that the server listens on.
        token: that the opened address holds.
        require_token: from scripts, too.
        count: called with method and status of every request.
    """

    def __init__(self, app: ASGIApp, *, port: int, token: str, require_token: bool, count: Callable[[str, int], None]):
        self.app, self.token, self.require_token, self.count = app, token, require_token, count
        names = ("127.0.0.1", "localhost", "[::1]")
        self.hosts = {f"{name}:{port}" for name in names} | ({*names} if port == 80 else set())
        self.cookie = f"cpfnet-{port}"  # browsers give cookies to all ports of a host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = ended = False

        async def with_headers(message: Message) -> None:
            nonlocal begun, ended
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                self.count(scope["method"], message["status"])
            await send(message)
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)

        refused = self._refusal(scope)
        try:
            await (self.app if refused is None else refused)(scope, receive, with_headers)
        except Exception as error:
            if not begun:
                await unexpected(error)(scope, receive, with_headers)
            elif not ended:  # it cannot be taken back, and ends short
                logger.error("an answer broke off: %s: %s", type(error).__name__, redacted_message(error))

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host, origins = headers.getlist("host"), headers.getlist("origin")
        if len(host) != 1 or host[0].lower() not in self.hosts:
            return problem(421, "this server does not go by that name", "use 127.0.0.1 and its port")
        if any(origin.lower() != f"http://{host[0].lower()}" for origin in origins):
            return problem(403, "this comes from a page of another site")
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return problem(403, "this comes from a page of another site")
        if scope["path"] in OPEN:
            return None
        if scope["path"] == "/" and (given := parse_qs(scope["query_string"].decode("latin-1")).get("token")):
            return self._enter(given[0])
        if (bearer := headers.get("authorization")) is not None:
            kind, _, word = bearer.partition(" ")
            known = kind.lower() == "bearer" and self._is_token(word.strip())
        elif (cookie := self._cookie(headers)) is not None:
            known = self._is_token(cookie)
        else:  # browsers say where a request comes from, scripts do not
            page = bool(origins) or any(name.startswith("sec-fetch-") for name in headers)
            known = not (page or self.require_token)
        if known:
            return None
        fix = "open the address that the server printed, or send its token: Authorization: Bearer TOKEN"
        return problem(401, "the token is missing, or that of another start", fix, {"WWW-Authenticate": "Bearer"})

    def _enter(self, token: str) -> Response:
        if not self._is_token(token):
            return problem(401, "the token is that of another start", "open the address that the server printed")
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self.cookie, self.token, httponly=True, samesite="strict")
        return answer

    def _cookie(self, headers: Headers) -> str | None:
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            return None
        return None if found is None else found.value

    def _is_token(self, word: str) -> bool:
        return hmac.compare_digest(word.encode(), self.token.encode())
