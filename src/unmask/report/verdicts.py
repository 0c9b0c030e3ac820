"""Verdicts for other programs: SARIF 2.1.0, JUnit XML, GitHub annotations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from unmask import __version__
from unmask.errors import UserError
from unmask.report.annotations import annotated
from unmask.report.files import to_json
from unmask.report.kinds import explain
from unmask.text import printable
from unmask.verdict import SEVERITIES, Severity, Verdict

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
SIGNS = {"error": ("bad", "✗"), "warning": ("mixed", "!"), "note": ("none", "–")}

__all__ = ["SIGNS", "annotated", "junit", "sarif"]


def sarif(
    verdicts: Iterable[Verdict], model: str, *, figures: Mapping[str, float] | None = None
) -> str:
    """Return verdicts as a SARIF 2.1.0 log, which code scanning services read.

    Args:
        verdicts: the findings; each kind is a rule.
        model: the file or import path of the model, the location of verdicts that name none.
        figures: what was measured, kept as properties of the run.
    """
    found = list(verdicts)
    kinds = list(dict.fromkeys(v.kind for v in found))
    rules = [
        {
            "id": _identifier(kind),
            "name": "".join(word.capitalize() for word in re.findall(r"\w+", kind)),
            "shortDescription": {"text": kind},
            **_meaning(kind),
            "defaultConfiguration": {"level": _worst(found, kind)},
        }
        for kind in kinds
    ]
    results = [_result(v, kinds, model) for v in found]
    driver = {
        "name": "Unmask",
        "semanticVersion": __version__,
        "informationUri": "https://pypi.org/project/unmask/",
        "rules": rules,
    }
    run: dict[str, Any] = {
        "tool": {"driver": driver},
        "columnKind": "utf16CodeUnits",
        "results": results,
    }
    if figures:
        run["properties"] = {"figures": dict(figures)}
    return to_json({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1) + "\n"


def _meaning(kind: str) -> dict[str, Any]:
    try:
        return {"fullDescription": {"text": explain(kind)[1]}}
    except UserError:  # A plugin may add kinds of its own.
        return {}


def _identifier(kind: str) -> str:
    return "-".join(re.findall(r"\w+", kind.lower()))


def _worst(found: Sequence[Verdict], kind: str) -> Severity:
    return max((v.severity for v in found if v.kind == kind), key=SEVERITIES.index)


def _result(v: Verdict, kinds: list[str], model: str) -> dict[str, Any]:
    parts = (v.message, v.cause and f"Cause: {v.cause}", v.fix and f"Fix: {v.fix}")
    text = ". ".join(printable(part).rstrip(".") for part in parts if part) + "."
    file, line = model, None
    if v.location:
        file, _, number = v.location.rpartition(":")
        file, line = (file, int(number)) if file and number.isdigit() else (v.location, None)
    place: dict[str, Any] = {"artifactLocation": {"uri": _uri(file)}}
    if line:
        place["region"] = {"startLine": line}
    location: dict[str, Any] = {"physicalLocation": place}
    if v.subject:
        location["logicalLocations"] = [{"fullyQualifiedName": printable(v.subject)}]
    return {
        "ruleId": _identifier(v.kind),
        "ruleIndex": kinds.index(v.kind),
        "level": v.severity,
        "message": {"text": text},
        "locations": [location],
        "partialFingerprints": {
            "unmask/v1": f"{_identifier(v.kind)}/{_identifier(v.subject or '')}"
        },
        "properties": {"evidence": dict(v.evidence)},
    }


def _uri(path: str) -> str:
    from urllib.parse import quote

    # An import path is no URI: its colon would be read as the end of a scheme.
    plain = path.replace("\\", "/").replace(":", "/")
    return quote(plain, safe="/._-", errors="backslashreplace") or "model"


def junit(
    suites: Mapping[str, Sequence[Verdict]],
    *,
    name: str,
    fail_on: Severity = "error",
    skipped: Mapping[str, str] | None = None,
    seconds: Mapping[str, float] | None = None,
) -> str:
    """Return verdicts as JUnit XML: a suite for each question, a test for each verdict.

    Args:
        suites: the verdicts by question.
        name: of the model.
        fail_on: the severity from which a verdict is a failure.
        skipped: questions that were skipped, and why.
        seconds: how long each question took.
    """
    root = ElementTree.Element("testsuites", name=printable(f"unmask check {name}"))
    total = failures = 0
    for question in dict.fromkeys([*suites, *(skipped or {})]):
        verdicts = suites.get(question, ())
        took = f"{(seconds or {}).get(question, 0.0):.3f}"
        suite = ElementTree.SubElement(root, "testsuite", name=question, time=took)
        failed = 0
        reason = (skipped or {}).get(question)
        if reason is not None:
            case = ElementTree.SubElement(suite, "testcase", classname=question, name="asked")
            ElementTree.SubElement(case, "skipped", message=printable(reason))
        elif not verdicts:
            ElementTree.SubElement(suite, "testcase", classname=question, name="healthy", time=took)
        for v in verdicts:
            label = printable(f"{v.kind}: {v.subject}" if v.subject else v.kind)
            case = ElementTree.SubElement(suite, "testcase", classname=question, name=label)
            if SEVERITIES.index(v.severity) >= SEVERITIES.index(fail_on):
                fault = ElementTree.SubElement(
                    case, "failure", type=v.severity, message=printable(v.message)
                )
                fault.text = printable(str(v))
                failed += 1
            else:
                ElementTree.SubElement(case, "system-out").text = printable(str(v))
        count = len(suite)
        suite.set("tests", str(count))
        suite.set("failures", str(failed))
        suite.set("errors", "0")
        suite.set("skipped", str(int(reason is not None)))
        total, failures = total + count, failures + failed
    root.set("tests", str(total))
    root.set("failures", str(failures))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
