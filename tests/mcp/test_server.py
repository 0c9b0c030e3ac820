"""The tools as an assistant meets them: the SDK's own client, over stdio and in this process."""

from __future__ import annotations

import ast
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from unmask.report.kinds import QUESTIONS, explain

pytest.importorskip("mcp", reason="mcp is not installed")

from mcp.client.client import Client
from mcp.client.stdio import stdio_client

from mcp import StdioServerParameters
from unmask.mcp.server import server

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "src/unmask/data/samples"


def asked(*calls: tuple[str, dict[str, Any]], through: Any = None) -> list[Any]:
    """Call tools one after another in one session; return what they answer."""

    async def session() -> list[Any]:
        async with Client(server() if through is None else through) as client:
            listed = await client.list_tools()
            answers = [await client.call_tool(name, arguments) for name, arguments in calls]
            return [listed.tools, *answers]

    return asyncio.run(session())


def test_the_four_tools_are_listed_with_what_they_take() -> None:
    (tools,) = asked()
    by_name = {tool.name: tool for tool in tools}
    assert set(by_name) == {"check", "audit", "detect", "explain_verdict"}
    assert set(by_name["check"].input_schema["required"]) == {"model", "data"}
    assert by_name["detect"].annotations.read_only_hint
    assert not by_name["check"].annotations.read_only_hint
    assert all(len(tool.description) > 50 for tool in tools)


@pytest.mark.slow
def test_a_transcript_over_stdio() -> None:
    parameters = StdioServerParameters(
        command=sys.executable, args=["-m", "unmask", "mcp"], env=None, cwd=str(ROOT)
    )
    _, explained, found, unknown = asked(
        ("explain_verdict", {"kind": "vanishing"}),
        ("detect", {"image": str(SAMPLES / "obama.jpg")}),
        ("check", {"model": "mnits", "data": "mnist"}),
        through=stdio_client(parameters),
    )
    assert explained.structured_content["question"] == "flow"
    # The same as text, for clients that read no structure.
    assert json.loads(explained.content[0].text) == explained.structured_content
    (face,) = found.structured_content["faces"]
    assert face["class"] in ("without_mask", "not_judged")
    assert sum(face["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    assert unknown.is_error
    assert "did you mean 'mnist'" in unknown.content[0].text


@pytest.mark.slow
def test_a_check_and_an_audit_give_verdicts_and_figures() -> None:
    _, checked, audited = asked(
        ("check", {"model": "mnist", "data": "mnist", "minutes": 0.05, "questions": ["accuracy"]}),
        ("audit", {"model": "mnist", "data": "mnist", "images": 2, "eps": 0.01}),
    )
    assert checked.structured_content["figures"]["accuracy.accuracy"] > 0.95
    assert checked.structured_content["passed"] is True
    (robust,) = audited.structured_content["robust_accuracy_of_all"].values()
    assert robust["of"] == 2
    for answer in (checked, audited):
        for verdict in answer.structured_content["verdicts"]:
            assert explain(verdict["kind"])
            assert verdict["message"]


@pytest.mark.parametrize(
    ("tool", "arguments", "line"),
    [
        ("check", {"model": "mnist", "data": "mnist", "minutes": 1e9}, "at most 30 minutes"),
        ("audit", {"model": "mnist", "data": "mnist", "images": 0}, "images lie in 1 to 2,000"),
        ("audit", {"model": "weights.pt", "data": "mnist"}, "could run any code when opened"),
        ("detect", {"image": "nowhere.jpg"}, "there is no such image"),
        ("explain_verdict", {"kind": "vanishin"}, "vanishing"),
        # The SDK passes over arguments that a tool doesn't have.
        (
            "audit",
            {"model": "mnist", "data": "mnist", "epsilon": 0.1},
            "unknown argument of audit: got 'epsilon'; did you mean 'eps'?",
        ),
        ("detect", {}, "wrong arguments of detect: image: Field required"),
        ("check", {"model": "a", "data": "b", "questions": "flow"}, "questions: Input should be a"),
    ],
)
def test_a_mistake_is_one_line(tool: str, arguments: dict[str, Any], line: str) -> None:
    _, answer = asked((tool, arguments))
    assert answer.is_error
    assert line in answer.content[0].text
    assert "\n" not in answer.content[0].text


def test_every_kind_of_verdict_is_explained() -> None:
    kinds: set[str] = set()
    for path in (ROOT / "src/unmask").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Verdict":
                first = node.args[0] if node.args else None
                kinds |= {first.value} if isinstance(first, ast.Constant) else set()
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).endswith("Kind"):
                kinds |= {c.value for c in ast.walk(node.value) if isinstance(c, ast.Constant)}
    explained = [kind for kinds in QUESTIONS.values() for kind in kinds]
    assert kinds <= set(explained)
    assert len(explained) == len(set(explained)), "a kind of two questions"
