"""The fault benchmark: who tells broken models from healthy ones within ten training steps?

Half of the models are healthy, half are the same models with one thing broken in one of twelve
ways; each was trained before it was labelled (fault_labels.py). Thresholds of Unmask were set on
the development half only. A table comes first, then one line of JSON.

    python benchmarks/flow/faults.py [--half measured|development] [--repair] [--rows FILE] ...
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from fault_data import batches, load
from fault_labels import Case, label, read, train
from fault_models import FAULTS, STEPS, build, optimizer_of
from fault_rivals import RIVALS
from rich.console import Console
from rich.table import Table
from torch import nn

from unmask.execution.address import executor_at
from unmask.execution.executor import Executor
from unmask.flow.check import DEFAULT_STEPS, FlowCheck, check_flow
from unmask.flow.repair import repair
from unmask.runtime import environment_stamp

TARGET_RECALL, TARGET_ALARMS, TARGET_REPAIR = 0.98, 0.02, 0.90
CLOSE = 0.02
# Verdicts that name what was broken, or what it brings about.
RIGHT = {
    "vanishing: small weights": {"vanishing"},
    "vanishing: sigmoid": {"vanishing"},
    "exploding: large weights": {"exploding", "saturated"},
    "dead units": {"dead units"},
    "saturated": {"saturated"},
    "underflow": {"float underflow", "vanishing"},
    "learning rate too high": {"learning rate too high", "diverged"},
    "learning rate too low": {"learning rate too low"},
    "inputs too large": {"inputs badly scaled"},
    "inputs too small or off centre": {"inputs badly scaled"},
    "constant outputs": {"constant outputs"},
    "symmetric initialisation": {"symmetric initialisation"},
}


def checked(case: Case) -> tuple[FlowCheck, float]:
    """Return Unmask's check of a case, and the seconds it took."""
    split = load(case.recipe.data)
    model = build(case.recipe, split.shape, split.classes)
    pairs = list(batches(case.recipe, split, DEFAULT_STEPS))
    start = time.perf_counter()
    check = check_flow(
        model, nn.functional.cross_entropy, pairs, optimizer=optimizer_of(case.recipe)
    )
    return check, time.perf_counter() - start


def repaired(faulty: Case, healthy: Case, check: FlowCheck) -> dict[str, Any]:
    """Return what repair made of a broken model, trained as long as its healthy twin."""
    split = load(faulty.recipe.data)
    outcome = repair(
        build(faulty.recipe, split.shape, split.classes),
        nn.functional.cross_entropy,
        lambda seed: batches(replace(faulty.recipe, seed=seed), split, STEPS),
        optimizer_of(faulty.recipe),
        check=check,
    )
    accuracy = faulty.accuracy
    if outcome.mended is not None:
        accuracy = train(faulty.recipe, outcome.mended)[0][-1]
    return {
        "model": faulty.recipe.name,
        "fault": faulty.recipe.fault,
        "fix": outcome.best.name if outcome.best else "none worked",
        "sets": outcome.best.sets if outcome.best else "",
        "healthy": healthy.accuracy,
        "broken": faulty.accuracy,
        "mended": accuracy,
        "mended_to_within_2_points": accuracy >= healthy.accuracy - CLOSE,
    }


def pair_results(fix: bool, pair: tuple[Case, Case]) -> list[dict[str, Any]]:
    """Check a healthy model and its broken twin, and repair the twin; a task of an executor."""
    torch.set_num_threads(1)
    rows = []
    for case in pair:
        check, seconds = checked(case)
        row = {
            "model": case.recipe.name,
            "kinds": sorted({v.kind for v in check.at_least("error")}),
            "rivals": {name: bool(rule(case, check.history)) for name, rule in RIVALS.items()},
            "steps": check.history[-1].step + 1,
            "seconds": seconds,
        }
        if fix and not case.healthy and row["kinds"]:
            row["repair"] = repaired(case, pair[0], check)
        rows.append(row)
    return rows


def results_of(
    on: Executor, pairs: Sequence[tuple[Case, Case]], fix: bool, path: Path | None
) -> list[dict[str, Any]]:
    """Return a row for every model, in order, writing each pair's to a file as soon as it is there.

    Pairs that the file holds are not gone through again. Once all have ended, what failed ends the
    program by name.
    """
    rows: dict[str, dict[str, Any]] = {}
    if path is not None and path.exists():
        rows = {row["model"]: row for row in map(json.loads, path.read_text().splitlines())}
    todo = [p for p in pairs if any(case.recipe.name not in rows for case in p)]
    failed = []
    for done in on.run(pair_results, fix, todo):
        if done.error is not None:
            failed.append(f"{todo[done.index][0].recipe.name}: {done.error}")
            continue
        rows |= {row["model"]: row for row in done.result}
        if path is not None:
            with path.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in done.result)
    if failed:
        raise SystemExit("\n".join(failed))
    return [rows[case.recipe.name] for p in pairs for case in p]


def rates(cases: Sequence[Case], alarms: Sequence[bool]) -> dict[str, float]:
    """Return recall on the faulty, and false alarms on the healthy."""
    faulty = [a for c, a in zip(cases, alarms, strict=True) if not c.healthy]
    healthy = [a for c, a in zip(cases, alarms, strict=True) if c.healthy]
    return {"recall": sum(faulty) / len(faulty), "false_alarms": sum(healthy) / len(healthy)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", choices=("measured", "development"), default="measured")
    parser.add_argument("--label", action="store_true", help="train the models without a label")
    parser.add_argument("--every", type=int, default=1, help="take every N-th pair: a sample")
    parser.add_argument("--repair", action="store_true", help="repair the broken models too")
    parser.add_argument("--rows", type=Path, help="keep results in this file, and go on from it")
    parser.add_argument("--on", default="local", help="local, ray, or a cluster's address")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.label:
        label()
    everything, dropped = read()
    cases = [c for c in everything if c.development == (arguments.half == "development")]
    # A pair is two cases in a row, the healthy one first.
    pairs = [(a, b) for a, b in zip(cases[::2], cases[1::2], strict=True)][:: arguments.every]
    cases = [case for pair in pairs for case in pair]
    with executor_at(arguments.on) as on:
        rows = results_of(on, pairs, arguments.repair, arguments.rows)

    alarms = {"Unmask": [bool(row["kinds"]) for row in rows]}
    for name in RIVALS:
        alarms[name] = [row["rivals"][name] for row in rows]
    table = Table("rules", "recall", "false alarms", title=f"{len(cases)} models, {arguments.half}")
    results: dict[str, Any] = {}
    for name, said in alarms.items():
        results[name] = rates(cases, said)
        table.add_row(name, *(f"{v:.1%}" for v in results[name].values()))

    by_fault: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    wrong = []
    for case, found in zip(cases, rows, strict=True):
        kinds = set(found["kinds"])
        if bool(kinds) == case.healthy:
            wrong.append({"model": case.recipe.name, "said": sorted(kinds)})
        if case.recipe.fault is not None:
            row = by_fault[case.recipe.fault]
            row[0] += 1
            row[1] += bool(kinds)
            row[2] += bool(kinds & RIGHT[case.recipe.fault])
    kinds_table = Table("fault", "models", "found", "named")
    for fault in FAULTS:
        kinds_table.add_row(fault, *map(str, by_fault[fault]))
    seconds = sorted(row["seconds"] for row in rows)
    steps = max(row["steps"] for row in rows)

    console = Console()
    console.print(table)
    console.print(kinds_table)
    console.print(f"decided after {steps} steps; median {seconds[len(seconds) // 2]:.2f} s a model")
    for row in wrong:
        console.print(f"wrong: {row['model']}: {', '.join(row['said']) or 'no error'}")
    if arguments.repair:
        outcomes = [row["repair"] for row in rows if "repair" in row]
        for row in outcomes:
            console.print(
                f"{row['model']} {row['fault']}: {row['broken']:.3f} -> {row['mended']:.3f} "
                f"(twin {row['healthy']:.3f}) by {row['fix']}: {row['sets']}"
            )
        # A broken model that was not found is not repaired either.
        broken = sum(not case.healthy for case in cases)
        close = sum(o["mended_to_within_2_points"] for o in outcomes) / broken
        console.print(f"mended to within 2 points of the healthy twin: {close:.1%}")
        results["repair"] = {"share": close, "target": TARGET_REPAIR, "outcomes": outcomes}
    results |= {
        "half": arguments.half,
        "models": len(cases),
        "steps": steps,
        "by_fault": dict(by_fault),
        "wrong": wrong,
        "draws_dropped": dropped,
        "targets": {"recall": TARGET_RECALL, "false_alarms": TARGET_ALARMS},
        "stamp": environment_stamp(threads=1),
    }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
