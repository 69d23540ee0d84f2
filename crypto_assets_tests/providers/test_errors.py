"""Which answers are worth asking again for, and what the errors say."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_assets.providers.errors import (
    ContractError,
    PermanentError,
    ProviderError,
    TransientError,
    classify,
    error_details,
    excerpt_of,
    mask,
    shorten,
)


@pytest.mark.parametrize("code", [10002, 10005, 10010, 10011, 10012])
@pytest.mark.parametrize("status", [200, 400, 401, 403, 429, 500])
def test_codes_of_key_and_plan_are_permanent_whatever_the_status(code: int, status: int) -> None:
    flat = {"status": {"error_code": code, "error_message": "no"}}
    for body in (flat, {"error": flat}):
        error = classify(status, json.dumps(body).encode(), provider="coingecko")
        assert type(error) is PermanentError
        assert str(code) in str(error)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 520, 599])
def test_time_outs_limits_and_server_faults_are_transient(status: int) -> None:
    assert type(classify(status, b"<html>oops</html>")) is TransientError


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 414, 418, 422, 451])
def test_other_client_errors_are_permanent(status: int) -> None:
    assert type(classify(status, b"")) is PermanentError


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"Throttled", 429), (b'{"status":{"error_code":429,"error_message":"slow down"}}', 429)],
)
def test_both_forms_of_429_are_transient(body: bytes, status: int) -> None:
    assert type(classify(status, body)) is TransientError


def test_a_limit_told_by_code_with_status_200_is_transient() -> None:
    assert type(classify(200, b'{"status":{"error_code":429}}')) is TransientError


@pytest.mark.parametrize(
    ("payload", "details"),
    [
        ({"status": {"error_code": 10002, "error_message": "Key"}}, (10002, "Key")),
        ({"error": {"status": {"error_code": 10012, "error_message": "Range"}}}, (10012, "Range")),
        ({"error": "coin not found"}, (None, "coin not found")),
        ({"status": 500, "error": "Internal"}, (None, "Internal")),
        ({"error_code": 10005, "error_message": "plan"}, (10005, "plan")),
        ([1], (None, "")),
        ({"prices": []}, (None, "")),
        (None, (None, "")),
    ],
)
def test_each_documented_error_shape_is_read(payload: Any, details: tuple[Any, str]) -> None:
    assert error_details(payload) == details


def test_advice_names_the_setting_to_change() -> None:
    def advice(code: int) -> str:
        body = json.dumps({"status": {"error_code": code, "error_message": "x"}}).encode()
        return str(classify(401, body, provider="coingecko"))

    assert "CRYPTO_ASSETS_COINGECKO__API_KEY" in advice(10002)
    assert "CRYPTO_ASSETS_COINGECKO__PLAN" in advice(10005)
    assert "history limit" in advice(10012)
    bare = classify(401, b"Unauthorized", provider="coingecko")
    assert "CRYPTO_ASSETS_COINGECKO__API_KEY" in str(bare)


def test_the_recorded_refusal_of_a_wrong_key_is_permanent(
    recorded: Callable[[str], Any],
) -> None:
    response = recorded("ping_401_random_demo_key.json")
    error = classify(
        response["status"]["code"], json.dumps(response["body"]).encode(), provider="coingecko"
    )
    assert isinstance(error, PermanentError)
    assert "10002" in str(error)
    assert "API Key Missing" in str(error)


def test_an_error_is_one_sentence_with_what_was_asked_came_back_and_to_do() -> None:
    error = PermanentError(
        "refused",
        provider="coingecko",
        endpoint="coins/{id}",
        asked="coins/{id} (id=bitcoin)",
        status=404,
        excerpt="gone",
        advice="check the id",
    )
    assert str(error) == (
        "coingecko was asked for coins/{id} (id=bitcoin): refused (HTTP 404), "
        'it sent "gone"; check the id'
    )


def test_a_contract_error_names_field_expectation_and_value() -> None:
    error = ContractError("bitcoin.current_price", "a number", "42652")
    assert "bitcoin.current_price should be a number, not '42652'" in str(error)
    assert isinstance(error, ProviderError)


def test_a_key_across_the_end_of_an_excerpt_leaves_no_half() -> None:
    key = "CG-canary-0123456789abcdef"
    for start in range(170, 201):
        shown = excerpt_of(b"x" * start + key.encode() + b"y" * 50, [key])
        assert "CG-can" not in shown
        assert len(shown) <= 200


def test_masking_also_finds_encoded_forms() -> None:
    key = 'a/b c"d'
    assert mask('q=a%2Fb%20c%22d and "a/b c\\"d" and a/b c"d', [key]) == 'q=*** and "***" and ***'


@given(st.text(), st.integers(1, 300))
def test_a_shortened_text_is_one_printable_line_within_its_length(text: str, length: int) -> None:
    shown = shorten(text, length)
    assert len(shown) <= length
    assert not any(c in shown for c in "\r\n\t\x00\u202e\u2028")
    shown.encode()


@given(st.integers(400, 599), st.binary(max_size=400))
def test_every_refusal_is_classified_and_can_be_shown(status: int, body: bytes) -> None:
    error = classify(status, body)
    assert isinstance(error, (PermanentError, TransientError))
    assert len(error.excerpt) <= 200
    assert str(error)
