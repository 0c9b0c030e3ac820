"""Tensors and cards on disk: what is written comes back, and what is damaged is named."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from unmask.errors import UserError
from unmask.models.card import ModelCard
from unmask.models.checkpoint import TensorFile, write_tensors


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))


def card(**changes: object) -> ModelCard:
    entries = {
        "architecture": "custom",
        "settings": {},
        "input_shape": (2, 8, 8),
        "mean": (0.5, 0.25),
        "std": (0.1, 1.0),
        "class_names": ("a", "b"),
        "facts": {"seed": 3},
    }
    return ModelCard(**(entries | changes))  # type: ignore[arg-type]


def test_tensors_and_header_come_back_bit_for_bit(tmp_path: Path) -> None:
    shared = torch.randn(4, 4)
    tensors = {
        "float": torch.randn(3, 2, 2, 2).to(memory_format=torch.channels_last),
        "half": torch.randn(5).half(),
        "count": torch.tensor(7),
        "view": shared[1:],
        "whole": shared,
        "empty": torch.zeros(0, 3),
    }
    write_tensors(tmp_path / "x.safetensors", tensors, {"epochs": [1, None, 0.1]})
    file = TensorFile(tmp_path / "x.safetensors")
    assert file.header == {"epochs": [1, None, 0.1]}
    back = file.tensors()
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)


def test_loading_fills_a_network_and_keeps_its_layout_and_precision(tmp_path: Path) -> None:
    source, target = network(), network().to(memory_format=torch.channels_last)
    with torch.no_grad():
        target[0].weight.zero_()
    state = {k: v.half() if v.ndim > 1 else v for k, v in source.state_dict().items()}
    write_tensors(tmp_path / "x.safetensors", state)
    TensorFile(tmp_path / "x.safetensors").load_into(target)
    assert target[0].weight.dtype == torch.float32
    assert target[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(target[0].weight, source[0].weight.half().float())


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    state = {k: v.to(torch.int8) if v.ndim > 1 else v for k, v in network().state_dict().items()}
    write_tensors(tmp_path / "x.safetensors", state)
    with pytest.raises(UserError, match=r"other kind of number in 0\.weight.*int8"):
        TensorFile(tmp_path / "x.safetensors").load_into(network())


def test_a_pickle_of_the_first_protocols_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for protocol in (0, 1):
        path.write_bytes(pickle.dumps({"weights": [0.5, 1.5]}, protocol=protocol))
        with pytest.raises(UserError, match="is a pickle"):
            TensorFile(path)


@pytest.mark.parametrize("modern", [True, False])
def test_a_pickle_is_refused_and_not_opened(tmp_path: Path, modern: bool) -> None:
    harmed = tmp_path / "harmed"
    name = str(harmed).encode()
    path = tmp_path / "x.safetensors"
    if modern:
        torch.save({"w": torch.zeros(2)}, path)
    else:
        # Opened, it would call os.mkdir(harmed).
        call = b"cos\nmkdir\nX" + len(name).to_bytes(4, "little") + name + b"\x85R."
        path.write_bytes(b"\x80\x02" + call)
    with pytest.raises(UserError, match="is a pickle"):
        TensorFile(path)
    assert not harmed.exists()


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda s: s.pop("0.bias"), r"lacks the tensor 0\.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), "a tensor too many: extra"),
        (lambda s: s.update({"0.bias": torch.zeros(4)}), r"another shape of 0\.bias.*got \[4\]"),
        (lambda s: s["0.bias"].fill_(float("nan")), r"not finite: got 0\.bias"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, change: object, wrong: str) -> None:
    state = network().state_dict()
    change(state)  # type: ignore[operator]
    write_tensors(tmp_path / "x.safetensors", state)
    with pytest.raises(UserError, match=wrong):
        TensorFile(tmp_path / "x.safetensors").load_into(network())


@pytest.mark.parametrize("keep", [0, 5, 8, 60, -1])
def test_a_truncated_file_is_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, network().state_dict())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"x\.safetensors is no readable"):
        TensorFile(path)


def test_a_header_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    with pytest.raises(UserError, match="no readable safetensors"):
        TensorFile(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        TensorFile(tmp_path / "none.safetensors")


def test_a_card_comes_back(tmp_path: Path) -> None:
    card().write(tmp_path / "x.json")
    assert ModelCard.read(tmp_path / "x.json") == card()


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": [0.5]},
        {"std": [0.1, 0.0]},
        {"std": [0.1, float("inf")]},
        {"class_names": ["a"]},
        {"class_names": [1, 2]},
        {"input_shape": [2, 8]},
        {"input_shape": [2, 8, 1 << 20]},
        {"input_shape": None},
        {"settings": []},
        {"format": "other/1"},
        {"surprise": 1},
    ],
)
def test_a_card_that_makes_no_sense_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(card().as_dict() | changes))
    with pytest.raises(UserError, match=r"x\.json is no readable model card"):
        ModelCard.read(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '"x"', "\x00", " " * (1 << 21)])
def test_a_file_that_is_no_card_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"x\.json is no readable model card"):
        ModelCard.read(path)
