from __future__ import annotations

import json
from importlib import metadata

import pytest

from unmask.cli.main import main
from unmask.mask.runtime import detector
from unmask.models import classifier
from unmask.sweep import native_net


def test_the_doctor_tells_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["libraries"]["numpy"] == metadata.version("numpy")
    assert found["kernel"]["used"] == native_net.chosen_instruction_set()
    assert set(found["models"]) == {*classifier.shipped(), "mask detector"}
    assert found["broken"] == []


def test_what_is_broken_is_named_and_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_net, "instruction_sets", lambda: 1 / 0)
    assert main(["doctor"]) == 1
    assert "broken: kernel" in capsys.readouterr().out


def test_a_detector_that_is_not_the_one_of_its_card_is_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    for suffix in (".onnx", ".json"):
        content = detector.WEIGHTS.with_suffix(suffix).read_bytes()
        (tmp_path / f"detector{suffix}").write_bytes(content + b" ")
    monkeypatch.setattr(detector, "WEIGHTS", tmp_path / "detector.onnx")
    assert main(["doctor"]) == 1
    assert "broken: models: mask detector" in capsys.readouterr().out


def test_a_dataset_at_home_is_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(b"")
    (tmp_path / "archive.zip").write_bytes(b"")
    monkeypatch.setenv("UNMASK_DATA", str(tmp_path))
    main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["data"]["CIFAR-10 (binary version)"] == str(archive)
    assert found["data"]["Face Mask Detection"] == str(tmp_path / "archive.zip")
