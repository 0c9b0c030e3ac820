import os
from pathlib import Path

import pytest

from unmask.web.reports import find_reports


def test_reports_are_found_newest_first(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "old/er", "oldest")):
        page = tmp_path / name / "report.html"
        page.parent.mkdir(parents=True)
        page.write_text(name)
        os.utime(page, (1e9 - age, 1e9 - age))
    found = find_reports([tmp_path])
    assert [p.read_text() for p in found.values()] == ["new", "old/er", "oldest"]
    assert next(iter(found)).startswith(f"{tmp_path.name}/new")


def test_links_out_hidden_folders_and_depths_are_left_out(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "report.html").write_text("secret")
    runs = tmp_path / "runs"
    for name in (".hidden", "a/b/c/d/e/f", "linked"):
        (runs / name).mkdir(parents=True)
    (runs / ".hidden" / "report.html").write_text("x")
    (runs / "a/b/c/d/e/f/report.html").write_text("x")
    (runs / "linked" / "report.html").symlink_to(secret / "report.html")
    (runs / "folder").symlink_to(secret)
    assert find_reports([runs]) == {}
    assert find_reports([tmp_path / "absent"]) == {}


def test_a_listed_report_is_served_and_may_run_nothing(client, reports: Path) -> None:
    for name, page in find_reports([reports]).items():
        answer = client.get("/reports/page", params={"name": name})
        assert answer.status_code == 200
        assert answer.content == page.read_bytes()
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("sandbox; default-src 'none'")
        assert "script" not in policy


@pytest.mark.parametrize(
    "name", ["", "../../etc/passwd", "/etc/passwd", "study/report.html", "%2e%2e/x", "a\0b"]
)
def test_what_is_not_listed_is_not_served(client, name: str) -> None:
    answer = client.get("/reports/page", params={"name": name})
    assert answer.status_code == 404
    assert "error" in answer.json()


@pytest.mark.parametrize("path", ["/reports/../pyproject.toml", "/reports/study/report.html"])
def test_no_path_leads_to_a_file(client, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_pipes_and_reports_that_have_just_gone_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "report.html")
    assert find_reports([tmp_path]) == {}
    monkeypatch.setattr(os, "walk", lambda root: [(str(root), [], ["report.html"])])
    assert find_reports([tmp_path]) == {}
