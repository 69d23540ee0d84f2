"""From a request to a reply: limits, faults, the provider, and the cache of clean bodies."""

import hashlib
import json
from dataclasses import replace
from typing import Any

from crypto_assets.sandbox import alternative_me, farside, mutations
from crypto_assets.sandbox.cache import ByteLru
from crypto_assets.sandbox.coingecko import CoinGecko
from crypto_assets.sandbox.faults import REPLY_KINDS, WIRE_KINDS, FaultBook, Rule
from crypto_assets.sandbox.market import Market
from crypto_assets.sandbox.plans import Gate
from crypto_assets.sandbox.reply import (
    HTML_TYPE,
    JSON_TYPE,
    TEXT_TYPE,
    RefusedError,
    Reply,
    Request,
    dump,
    flat_error,
    nested_error,
    plain_error,
    server_error,
)

CACHE_BYTES = 64 << 20
_BLOCKED_AGENTS = ("python-urllib",)
_PAGE = b"<!DOCTYPE html><html><head><title>Bad gateway</title></head><body>Oops</body></html>"
_CHALLENGE = (
    b"<!DOCTYPE html><html><head><title>Just a moment...</title></head>"
    b"<body>Checking your browser before you go on.</body></html>"
)


class Answers:
    """Answers of all providers. Clean bodies are kept as bytes, keyed by request and clock."""

    def __init__(self, market: Market, faults: FaultBook, plan: str) -> None:
        self._market = market
        self._faults = faults
        self.gate = Gate(plan)
        self._coingecko = CoinGecko(market, self.gate)
        self._bodies: ByteLru[Reply] = ByteLru(CACHE_BYTES, lambda reply: len(reply.body) + 500)

    def answer(self, request: Request) -> tuple[Reply, Rule | None]:
        """The reply, and the fault of the wire that strikes it, if any."""
        try:
            _refuse_bots(request)
            if request.provider == "coingecko":
                self.gate.admit(request)
            rules = self._faults.strike(request)
            reply = self._bent(request, rules)
        except RefusedError as refusal:
            return refusal.reply, None
        except Exception as error:
            # A mistake of the sandbox must not look like one of the provider's moods.
            text = f"The sandbox failed on {request.endpoint}: {error!r}"
            return Reply(500, text.encode(), TEXT_TYPE), None
        if reply.status == 200 and request.provider == "coingecko":
            self.gate.count_credit()
        wire = next((rule for rule in rules if rule.kind in WIRE_KINDS), None)
        return reply, wire

    def _bent(self, request: Request, rules: list[Rule]) -> Reply:
        for rule in rules:
            if rule.kind in REPLY_KINDS:
                return fault_reply(rule, request)
        rules = [rule for rule in rules if rule.kind not in WIRE_KINDS]
        if not rules:
            return self._clean(request)
        if request.provider == "farside":
            page = farside.build_page(self._market, request)
            for rule in rules:
                mutations.bend_page(page, rule)
            return farside.render(page)
        try:
            reply = self._clean(request)
        except RefusedError:
            for rule in rules:
                if rule.kind == "vanish":
                    raise RefusedError(plain_error(404, "coin not found")) from None
            raise
        content = json.loads(reply.body)
        for rule in rules:
            content = mutations.bend(content, rule, request, self._clean_content)
        body = dump(content).replace(f'"{mutations.HUGE_TOKEN}"'.encode(), b"1e400")
        return _tagged(replace(reply, body=body))

    def _clean_content(self, request: Request) -> Any:
        return json.loads(self._clean(request).body)

    def _clean(self, request: Request) -> Reply:
        if request.endpoint == "key":
            return self._coingecko.answer(request)
        query = tuple(sorted(request.query.items()))
        name = (request.provider, request.parts, query, request.now)
        # Limits of the plan depend on nothing else: a server has one plan for life.
        return self._bodies.get(name, lambda: _tagged(self._made(request)))

    def _made(self, request: Request) -> Reply:
        if request.provider == "coingecko":
            return self._coingecko.answer(request)
        if request.provider == "alternative_me":
            return alternative_me.answer(self._market, request)
        return farside.render(farside.build_page(self._market, request))


def _tagged(reply: Reply) -> Reply:
    digest = hashlib.blake2b(reply.body, digest_size=16).hexdigest()
    return replace(reply, headers={**reply.headers, "ETag": f'W/"{digest}"'})


def _refuse_bots(request: Request) -> None:
    """The CDN in front of some providers turns away clients without a name of their own."""
    agent = request.headers.get("user-agent", "").lower()
    if request.provider != "alternative_me" and (not agent or agent.startswith(_BLOCKED_AGENTS)):
        raise RefusedError(Reply(403, b"error code: 1020", TEXT_TYPE))


def fault_reply(rule: Rule, request: Request) -> Reply:
    """What a fault answers instead of the provider."""
    options = rule.options
    code = int(options.get("code", 403 if rule.kind == "challenge" else 200))
    if rule.kind == "status":
        return _status_reply(rule, request)
    if rule.kind == "html":
        return Reply(code, _PAGE, JSON_TYPE if options.get("as_json") else HTML_TYPE)
    if rule.kind == "challenge":
        return Reply(code, _CHALLENGE, HTML_TYPE, {"cf-mitigated": "challenge"})
    if rule.kind == "empty_body":
        return Reply(code, b"")
    if rule.kind == "empty_object":
        return Reply(code, b"{}")
    return Reply(200, dump({"error": options.get("message", "Something went wrong")}))


def _status_reply(rule: Rule, request: Request) -> Reply:
    code = int(rule.options["code"])
    message = str(rule.options.get("message", "Injected by a fault"))
    error_code = int(rule.options.get("error_code", code))
    shapes = {
        "status": lambda: flat_error(code, error_code, message, request.now),
        "nested": lambda: nested_error(code, error_code, message, request.now),
        "error": lambda: plain_error(code, message),
        "server": lambda: replace(server_error(), status=code),
        "text": lambda: Reply(code, b"Throttled" if code == 429 else message.encode(), TEXT_TYPE),
        "html": lambda: Reply(code, _PAGE, HTML_TYPE),
        "empty": lambda: Reply(code, b"", TEXT_TYPE),
    }
    reply = shapes[str(rule.options.get("shape", "status"))]()
    if "retry_after" in rule.options:
        # Seconds, an HTTP date or nonsense: sent as given.
        reply = replace(
            reply, headers={**reply.headers, "Retry-After": str(rule.options["retry_after"])}
        )
    return reply
