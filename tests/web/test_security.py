"""Who the local API turns away: other web pages, rebound names, strangers without the token, floods."""

import json
from typing import Any

import aiohttp
import pytest

from sparkle_p2p.web.server import ApiServer
from sparkle_protocol.errors import ConfigError


async def ask(
    node: Any,
    path: str = "/api/v1/status",
    *,
    method: str = "GET",
    data: bytes | None = None,
    **headers: str | None,
) -> tuple[int, dict[str, Any], Any]:
    sent = {"Authorization": f"Bearer {node.home.token}", "Content-Type": "application/json"}
    for name, value in headers.items():
        key = name.replace("_", "-")
        sent = {k: v for k, v in sent.items() if k.lower() != key.lower()}
        if value is not None:
            sent[key] = value
    timeout = aiohttp.ClientTimeout(total=20)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.request(method, node.url + path, headers=sent, data=data) as response,
    ):
        return response.status, json.loads(await response.read()), response.headers


async def test_the_owner_with_the_token_is_answered(node: Any, fake: Any) -> None:
    status, document, headers = await ask(node)
    assert (status, document["peer_id"], document["peers"]) == (200, fake.ME, 2)
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in headers
    assert "aiohttp" not in headers["Server"].lower()


@pytest.mark.parametrize("given", [None, "", "Bearer ", "Bearer wrong", "Basic abc", "Bearer ü"])
async def test_without_the_right_token_nobody_is_answered(node: Any, given: str | None) -> None:
    for path in ("/api/v1/status", "/api/v1/nothing"):
        status, document, _ = await ask(node, path, Authorization=given)
        assert status == 401
        assert "token" in document["error"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "10.0.0.1:{port}"]
)
async def test_a_foreign_host_name_is_refused(node: Any, host: str) -> None:
    status, document, _ = await ask(node, Host=host.format(port=node.port))
    assert (status, document["kind"]) == (403, "Forbidden")
    status, _, _ = await ask(node, "/healthz", Host=host.format(port=node.port))
    assert status == 403


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST:{port}", "[::1]:{port}"])
async def test_our_own_names_are_accepted(node: Any, host: str) -> None:
    status, _, _ = await ask(node, Host=host.format(port=node.port))
    assert status == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1:{port}"])
async def test_a_foreign_origin_is_refused(node: Any, origin: str) -> None:
    status, document, _ = await ask(node, Origin=origin.format(port=node.port))
    assert (status, document["kind"]) == (403, "Forbidden")


async def test_our_own_origin_is_accepted(node: Any) -> None:
    status, _, _ = await ask(node, Origin=f"http://127.0.0.1:{node.port}", Sec_Fetch_Site="same-origin")
    assert status == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "anything"])
async def test_a_request_that_another_page_caused_is_refused(node: Any, site: str) -> None:
    status, _, _ = await ask(node, Sec_Fetch_Site=site)
    assert status == 403


async def test_a_huge_body_is_refused(node: Any) -> None:
    status, document, _ = await ask(node, "/api/v1/jobs", method="POST", data=b" " * 300_000)
    assert (status, document["error"]) == (413, "the request body is too large")
    assert node.control.submitted == []


async def test_a_wrong_method_or_path_is_named(node: Any) -> None:
    status, document, headers = await ask(node, method="POST")
    assert (status, headers["Allow"]) == (405, "GET")
    assert "only answers GET" in document["error"]
    status, document, _ = await ask(node, "/api/v1/nothing")
    assert (status, document["kind"]) == (404, "NotFound")
    status, _, _ = await ask(node, "/api/v1/jobs", method="DELETE")
    assert status == 405


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "not a job"),
        (b"[1]", "not a job"),
        (b'{"kernel": 3, "params": {}}', "not a job"),
        (b'{"kernel": "prime_count"}', "not a job"),
        (b'{"kernel": "prime_count", "params": {}, "verify": "never"}', "not a job"),
        (b'{"kernel": "prime_count", "params": {}, "units": 0}', "1 to 1048576 units"),
        (b'{"kernel": "prime_count", "params": {}, "units": 99999999}', "1 to 1048576 units"),
        (b'{"kernel": "zebra", "params": {}}', "no kernel 'zebra'"),
        (b"[" * 100_000, "not a job"),
        (b'{"kernel": "\xff"}', "not a job"),
    ],
)
async def test_a_malformed_job_is_refused_with_one_sentence(node: Any, body: bytes, expected: str) -> None:
    status, document, _ = await ask(node, "/api/v1/jobs", method="POST", data=body)
    assert (status, document["kind"]) == (400, "ConfigError")
    assert expected in document["error"]


async def test_a_form_cannot_submit_a_job(node: Any) -> None:
    body = b'{"kernel": "prime_count", "params": {}}'
    status, _, _ = await ask(node, "/api/v1/jobs", method="POST", data=body, Content_Type="text/plain")
    assert status == 415
    assert node.control.submitted == []


async def test_a_bug_in_the_node_shows_no_traceback(node: Any) -> None:
    node.control.broken = RuntimeError("secret detail")
    status, document, _ = await ask(node)
    assert status == 500
    assert "secret" not in json.dumps(document)
    node.control.broken = None
    assert (await ask(node))[0] == 200


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0", "192.0.2.1:80", "example.org:80"])
async def test_it_listens_on_loopback_only(fake: Any, bind: str) -> None:
    with pytest.raises(ConfigError, match="stays on this machine"):
        ApiServer(fake.FakeControl(), token="t", bind=bind)


async def test_a_port_in_use_is_named(node: Any, fake: Any) -> None:
    server = ApiServer(fake.FakeControl(), token="t", bind=f"127.0.0.1:{node.port}")
    with pytest.raises(ConfigError, match=rf"port {node.port} is in use.*--api"):
        await server.start()
    await server.stop()
