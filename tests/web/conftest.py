"""A detector made up for the tests, the application around it, and a server of its own process."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from made_up_detector import build
from unmask.web.server import Settings, application


@pytest.fixture(scope="session")
def rectangles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX file of a detector that finds painted rectangles."""
    return build(tmp_path_factory.mktemp("model") / "rectangles.onnx")


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of reports, one of which would run a script."""
    root = tmp_path_factory.mktemp("runs")
    for name, body in (
        ("study", "<h1>The study</h1>"),
        ("hostile/deep", "<h1>Hostile</h1><script>top.document.title = 'taken'</script>"),
    ):
        (root / name).mkdir(parents=True)
        (root / name / "report.html").write_text(f"<!doctype html><title>{name}</title>{body}")
    return root


@pytest.fixture(scope="session")
def client(rectangles: Path, reports: Path) -> Iterator[TestClient]:
    """What speaks to the application without a network."""
    settings = Settings(detector=rectangles, reports=(reports,))
    with TestClient(application(settings), base_url="http://127.0.0.1:7860") as made:
        yield made


@dataclass(frozen=True)
class Served:
    """A server that runs: its address, its process, its temporary files, and what it said."""

    url: str
    port: int
    process: int
    temporary: Path
    log: Path

    def files(self) -> list[Path]:
        """Return what the server has left on disk."""
        return [p for p in self.temporary.rglob("*") if p.is_file()]


@pytest.fixture(scope="session")
def served(
    rectangles: Path, reports: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """The command itself, with a short limit for slow clients, in a process of its own."""
    folder = tmp_path_factory.mktemp("server")
    temporary = folder / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-m", "unmask", "serve", "--port", "0", "--seconds", "12"]
    command += ["--detector", str(rectangles), "--reports", str(reports), "--rate", "0"]
    places = {name: str(temporary) for name in ("TMPDIR", "GRADIO_TEMP_DIR")}
    log = folder / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=folder,
            env={**os.environ, **places, "COLUMNS": "200"},
        ) as process,
    ):
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert found, log.read_text()
        yield Served(found[0], int(found[1]), process.pid, temporary, log)
        process.terminate()
        process.wait(20)
