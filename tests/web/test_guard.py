import base64

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from unmask.web.guard import LOOPBACK, Guard, network
from unmask.web.limits import Limits
from unmask.web.server import Settings, configured

SECRET = "open sesame"


async def _echo(request):
    return PlainTextResponse(f"{len(await request.body())}")


def guard_of(secret: str | None = None, hosts=LOOPBACK, **limits) -> Guard:
    inner = Starlette(
        routes=[Route("/api/{path:path}", _echo, methods=["GET", "POST"]), Route("/", _echo)]
    )
    return Guard(inner, Limits(**limits), secret=secret, hosts=hosts)


def guarded(secret: str | None = None, hosts=LOOPBACK, **limits) -> TestClient:
    return TestClient(guard_of(secret, hosts, **limits), base_url="http://127.0.0.1:1234")


def test_a_whole_and_small_body_arrives() -> None:
    answer = guarded().post("/api/x", content=b"a" * 1000)
    assert (answer.status_code, answer.text) == (200, "1000")


@pytest.mark.parametrize("content", [b"a" * 101, [b"a" * 60, b"a" * 41]])
def test_a_large_body_is_refused_told_or_not(content) -> None:
    answer = guarded(size=100).post(
        "/api/x", content=content if isinstance(content, bytes) else iter(content)
    )
    assert answer.status_code == 413
    assert answer.json()["error"] == "the request is too large; the limit is 100 bytes"


def test_a_body_of_no_size_is_refused() -> None:
    answer = guarded().post("/api/x", content=b"a", headers={"content-length": "-1"})
    assert answer.status_code == 413


def test_too_many_requests() -> None:
    client = guarded(rate=4)
    answers = [client.post("/api/x", content=b"").status_code for _ in range(3)]
    assert answers == [200, 429, 429]
    # What costs no work is not counted.
    assert client.get("/api/x").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::1"])
def test_a_foreign_name_for_this_machine_is_refused(host: str) -> None:
    assert guarded().get("/", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost:99", "127.0.0.1", "[::1]:7860"])
def test_its_own_names_are_answered(host: str) -> None:
    assert guarded().get("/", headers={"host": host}).status_code == 200


def test_another_site_may_not_post() -> None:
    client = guarded(hosts=None)
    assert client.post("/api/x", headers={"origin": "http://evil.example"}).status_code == 403
    assert client.post("/api/x", headers={"origin": "http://127.0.0.1:1234"}).status_code == 200


@pytest.mark.parametrize("origin", ["null", "http://[::1", "http://", "//", "x", "\x7f"])
def test_an_origin_that_is_none_may_not_post(origin: str) -> None:
    assert guarded().post("/api/x", headers={"origin": origin}).status_code == 403


@pytest.mark.parametrize("body", [b"\x89PNG", b"", b"{", b"[" * 100_000, b"\xff{}"])
def test_what_is_no_json_does_not_reach_the_page(body: bytes) -> None:
    answer = guarded().post("/gradio_api/run/predict", content=body)
    # An empty body gets as far as the application, which has no such route here.
    assert answer.status_code == (422 if body else 404)


def test_a_fault_is_one_line_that_tells_nothing_of_the_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(request):
        raise ValueError(f"a name: {await request.body()!r}")

    inner = Starlette(routes=[Route("/api/x", broken, methods=["POST"])])
    guard = Guard(inner, Limits(), secret=None, hosts=None)
    answer = TestClient(guard).post("/api/x", content=b"a face")
    assert (answer.status_code, answer.json()) == (500, {"error": "this request can't be answered"})
    assert "ValueError in" in caplog.text
    assert "face" not in caplog.text


def test_a_forwarded_address_is_not_believed() -> None:
    client = guarded(rate=4)
    told = [
        {name: f"10.0.0.{i}"}
        for i, name in enumerate(("x-forwarded-for", "forwarded", "x-real-ip", "client-ip"))
    ]
    assert [client.post("/api/x", headers=h).status_code for h in told] == [200, 429, 429, 429]
    assert configured(guard_of(), Settings()).proxy_headers is False


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("testclient", "testclient", True),
    ],
)
def test_a_rate_is_of_a_network_that_one_client_may_have(one: str, other: str, same: bool) -> None:
    assert (network(one) == network(other)) is same


def test_reports_are_counted_for_they_are_looked_for() -> None:
    client = guarded(rate=4)
    answers = [client.get("/reports/page").status_code for _ in range(2)]
    assert answers == [404, 429]


def test_a_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr("unmask.web.guard.secrets.compare_digest", compare)
    client = guarded(SECRET, None)
    for given in (SECRET, "open", ""):
        client.get("/", headers={"authorization": f"Bearer {given}"})
    assert compared == [(given.encode(), SECRET.encode()) for given in (SECRET, "open", "")]


def basic(password: str) -> str:
    return f"Basic {base64.b64encode(f'me:{password}'.encode()).decode()}"


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (None, 401),
        (f"Bearer {SECRET}", 200),
        (f"bearer {SECRET}", 200),
        (basic(SECRET), 200),
        (basic("wrong"), 401),
        ("Bearer ", 401),
        (f"Digest {SECRET}", 401),
        ("Basic not-base64!", 401),
        ("Basic " + base64.b64encode(b"\xff\xfe").decode(), 401),
    ],
)
def test_a_secret_opens_page_and_api(given: str | None, status: int) -> None:
    headers = {} if given is None else {"authorization": given}
    for path in ("/", "/api/x"):
        answer = guarded(SECRET, None).get(path, headers=headers)
        assert answer.status_code == status
        if status == 401:
            assert answer.headers["www-authenticate"].startswith("Basic")
            assert SECRET not in answer.text


def test_guesses_at_the_secret_are_counted() -> None:
    client = guarded(SECRET, None, rate=8)
    wrong = {"authorization": "Bearer guess"}
    assert [client.get("/", headers=wrong).status_code for _ in range(3)] == [401, 401, 429]


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/upload",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file/x",
        "/gradio_api/proxy=http://example.com",
        "/gradio_api/component_server",
        "/gradio_api/stream/x",
        "/gradio_api/call/x",
        "/monitoring",
        "/login",
        "/anything",
    ],
)
def test_what_the_page_does_not_need_is_not_there(path: str) -> None:
    assert guarded().get(path).status_code == 404
    assert guarded().post(path, content=b"x").status_code == 404


def test_other_methods_are_refused() -> None:
    assert guarded().put("/api/x", content=b"x").status_code == 405


def test_every_answer_is_dressed() -> None:
    for answer in (guarded().get("/"), guarded().get("/nothing")):
        assert answer.headers["x-content-type-options"] == "nosniff"
    policy = guarded().get("/").headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
