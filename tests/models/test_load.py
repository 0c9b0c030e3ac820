"""Models by every name they go by: what they are wrapped in, and what is refused."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from torch import nn

from unmask.errors import UserError
from unmask.models.classifier import Classifier
from unmask.models.load import load_model
from unmask.models.preprocessing import Preprocessing, Wrapped, logits_in
from unmask.models.session import OnnxClassifier, read_onnx
from unmask.shift.target import as_target

PIXELS = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Mean(nn.Module):
    """The mean of each channel, by a linear layer."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.head = nn.Linear(3, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.mean((2, 3)))


def make_model() -> nn.Module:
    torch.manual_seed(1)
    return Mean()


# --- preprocessing -----------------------------------------------------------------------------


def test_preprocessing_is_scale_then_order_then_normalisation() -> None:
    steps = Preprocessing(scale=255, mean=(1, 2, 3), std=(4, 5, 6), order="BGR")
    expected = (PIXELS.flip(1) * 255 - torch.tensor([1, 2, 3.0])[:, None, None]) / torch.tensor(
        [4, 5, 6.0]
    )[:, None, None]
    torch.testing.assert_close(steps(PIXELS), expected)
    assert "BGR" in str(steps)


def test_images_of_the_networks_size_are_left_alone_and_others_are_cut_about_the_middle() -> None:
    steps = Preprocessing(size=(8, 8), crop=0.5, mean=(0, 0, 0), std=(1, 1, 1))
    assert torch.equal(steps(PIXELS), PIXELS)
    # A flat image stays flat; a wide one keeps its middle.
    wide = torch.zeros(1, 3, 32, 96)
    wide[..., 32:64] = 1
    assert steps(wide).shape == (1, 3, 8, 8)
    torch.testing.assert_close(steps(wide), torch.ones(1, 3, 8, 8))


def test_a_resized_image_is_pillows() -> None:
    from PIL import Image

    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 256, (40, 40, 3), np.uint8))
    expected = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR)) / 255
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None] / 255
    found = Preprocessing(size=(16, 16), mean=(0, 0, 0), std=(1, 1, 1))(pixels)
    # Pillow rounds to 8 bits after each direction.
    np.testing.assert_allclose(found[0].permute(1, 2, 0).numpy(), expected, atol=2 / 255)


@pytest.mark.parametrize(
    ("changed", "name"),
    [({"crop": 0.0}, "crop"), ({"std": (0.0,)}, "std"), ({"mean": (1.0, 2.0)}, "mean")],
)
def test_preprocessing_that_cannot_be_is_refused(changed: dict[str, Any], name: str) -> None:
    with pytest.raises(UserError, match=name):
        Preprocessing(**changed)


# --- what a network answers --------------------------------------------------------------------

LOGITS = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]])


class ModelOutput(dict[str, torch.Tensor]):
    logits = LOGITS


@pytest.mark.parametrize(
    "answer",
    [
        LOGITS,
        (LOGITS, torch.zeros(2, 5, 6)),
        [torch.zeros(2, 4, 4, 4), LOGITS],
        {"aux": torch.zeros(2, 9), "logits": LOGITS},
        ModelOutput(),
        LOGITS[:, :, None, None],
    ],
)
def test_logits_are_found_in_any_answer(answer: Any) -> None:
    assert torch.equal(logits_in(answer), LOGITS)


@pytest.mark.parametrize("answer", [torch.tensor([2.0, -1.0]), torch.tensor([[2.0], [-1.0]])])
def test_a_single_logit_is_the_second_of_two_classes(answer: torch.Tensor) -> None:
    found = logits_in(answer).softmax(1)[:, 1]
    torch.testing.assert_close(found, torch.tensor([2.0, -1.0]).sigmoid())


@pytest.mark.parametrize("answer", [None, "text", torch.zeros(2, 3, 4), [], {"a": 1}])
def test_an_answer_without_logits_is_refused(answer: Any) -> None:
    with pytest.raises(UserError, match="no row of logits"):
        logits_in(answer)


def test_of_a_softmax_the_logarithm_is_taken() -> None:
    plain = make_model()
    ended = load_model(nn.Sequential(make_model(), nn.Softmax(1)))
    assert isinstance(ended, Wrapped)
    torch.testing.assert_close(ended(PIXELS), plain(PIXELS).log_softmax(1))
    assert ended.gives_probabilities is True
    assert "probabilities" in ended.describe()


# --- modules and import paths ------------------------------------------------------------------


def test_a_module_of_your_own_is_wrapped_with_what_it_wants(tmp_path: Path) -> None:
    network = make_model()
    model = load_model(network, mean=0.5, std=(0.1, 0.2, 0.3), size=8)
    std = torch.tensor([0.1, 0.2, 0.3])[:, None, None]
    torch.testing.assert_close(model(PIXELS), network((PIXELS - 0.5) / std))
    assert model(torch.rand(2, 3, 20, 30)).shape == (2, 4)
    assert model.input_shape == (3, 8, 8)
    assert load_model(model) is model


def test_an_import_path_takes_weights_from_safetensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("my_nets")
    module.make_model = make_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_nets", module)
    other = Mean()
    save_file(other.state_dict(), tmp_path / "w.safetensors")
    model = load_model("my_nets:make_model", weights=tmp_path / "w.safetensors")
    torch.testing.assert_close(model(PIXELS), other(PIXELS))
    assert "no config says otherwise" in as_target("my_nets:make_model").about
    assert as_target("mnist").about == ""


def test_what_ships_and_what_train_writes_is_a_classifier(tmp_path: Path) -> None:
    shipped = load_model("mnist")
    assert isinstance(shipped, Classifier)
    shipped.save(tmp_path / "run" / "model")
    again = load_model(tmp_path / "run")
    assert isinstance(again, Classifier)
    digits = torch.rand(2, 1, 28, 28)
    assert torch.equal(shipped(digits), again(digits))


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.bin", "w.pkl", "w.ckpt"])
def test_pickles_are_refused_before_they_are_opened(name: str) -> None:
    with pytest.raises(UserError, match="could run any code when opened"):
        load_model(name)


def test_what_is_not_there_or_does_not_go_together_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'mnist'"):
        load_model("mnits")
    with pytest.raises(UserError, match="holds no model"):
        load_model(tmp_path)
    with pytest.raises(UserError, match="has its own preprocessing"):
        load_model("mnist", mean=0.5)
    with pytest.raises(UserError, match="with @ here"):
        load_model("timm:resnet18", weights="w.safetensors")
    save_file(Mean().state_dict(), tmp_path / "alone.safetensors")
    with pytest.raises(UserError, match=r"no card beside it.*timm:resnet18@FILE\.safetensors"):
        load_model(tmp_path / "alone.safetensors")


# --- ONNX --------------------------------------------------------------------------------------


def graph(
    path: Path,
    shape: list[int | str],
    *,
    dtype: int = TensorProto.FLOAT,
    channels_last: bool = False,
    softmax: bool = False,
    names: list[str] | None = None,
) -> np.ndarray[Any, Any]:
    """Write a graph that takes the mean of each channel by a matrix; return the matrix."""
    matrix = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    axes = [1, 2] if channels_last else [2, 3]
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "matrix"], ["sums" if softmax else "logits"]),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["sums"], ["logits"], axis=1))
    made = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info("pixels", dtype, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [shape[0], 4])],
        [
            numpy_helper.from_array(matrix, "matrix"),
            numpy_helper.from_array(np.array(axes, np.int64), "axes"),
        ],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if names:
        helper.set_model_props(model, {"class_names": json.dumps(names)})
    onnx.save(model, str(path))
    return matrix


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        (["n", 3, 8, 8], {}),
        (["n", 3, "h", "w"], {}),
        ([1, 3, 8, 8], {}),
        ([2, 3, 8, 8], {}),
        (["n", 8, 8, 3], {"channels_last": True}),
        (["n", 3, 8, 8], {"dtype": TensorProto.FLOAT16}),
        (["n", 3, 8, 8], {"dtype": TensorProto.UINT8}),
        (["n", 3, 8, 8], {"softmax": True}),
    ],
)
def test_an_onnx_file_of_any_layout_and_number_gives_logits(
    tmp_path: Path, shape: list[int | str], options: dict[str, Any]
) -> None:
    matrix = graph(tmp_path / "m.onnx", shape, names=list("abcd"), **options)
    model = load_model(tmp_path / "m.onnx")
    assert isinstance(model, Wrapped)
    assert model.class_names == ("a", "b", "c", "d")
    assert not model.differentiable
    means = PIXELS.mean((2, 3)).numpy()
    tolerance = 2e-3
    if options.get("dtype") == TensorProto.UINT8:
        means, tolerance = means * 255, 1.0
    expected = torch.from_numpy(means @ matrix)
    if options.get("softmax"):
        expected = expected.log_softmax(1)
    torch.testing.assert_close(model(PIXELS), expected, atol=tolerance, rtol=1e-3)
    # A check says what is assumed of pixels where no config does.
    assumed = "0 to 255" if options.get("dtype") == TensorProto.UINT8 else "0 to 1, RGB or grey"
    assert assumed in as_target(tmp_path / "m.onnx").about


def test_weights_beside_an_onnx_file_are_read_and_missed(tmp_path: Path) -> None:
    matrix = graph(tmp_path / "whole.onnx", ["n", 3, 8, 8])
    model = onnx.load(str(tmp_path / "whole.onnx"))
    beside = {"save_as_external_data": True, "location": "m.data", "size_threshold": 60}
    onnx.save(model, str(tmp_path / "m.onnx"), **beside)
    expected = torch.from_numpy(PIXELS.mean((2, 3)).numpy() @ matrix)
    torch.testing.assert_close(load_model(tmp_path / "m.onnx")(PIXELS), expected, atol=2e-3, rtol=0)
    before = read_onnx(tmp_path / "m.onnx")[1]
    content = bytearray((tmp_path / "m.data").read_bytes())
    content[0] ^= 1
    (tmp_path / "m.data").write_bytes(content)
    assert read_onnx(tmp_path / "m.onnx")[1] != before
    (tmp_path / "m.data").unlink()
    with pytest.raises(UserError, match=r"weights in another file.*got m\.data"):
        load_model(tmp_path / "m.onnx")
    outside = (tmp_path / "m.onnx").read_bytes().replace(b"m.data", b"../sec")
    (tmp_path / "m.onnx").write_bytes(outside)
    (tmp_path.parent / "sec").write_bytes(b"0" * 999)
    with pytest.raises(UserError, match="isn't beside it"):
        load_model(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("m.keras", "of TensorFlow or Keras.*export it as ONNX"),
        ("m.npz", "of NumPy"),
        ("m.joblib", "pickles"),
        ("m.py", "name the class or the function in it that makes one: m.py:make_model"),
        ("hf:", "which model of hf"),
        ("timm: ", "which model of timm"),
    ],
)
def test_files_of_other_libraries_and_names_left_out_are_told(name: str, line: str) -> None:
    with pytest.raises(UserError, match=line):
        load_model(name)
    with pytest.raises(UserError, match=line):
        as_target(name)


def test_an_onnx_file_that_takes_no_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no graph")
    with pytest.raises(UserError, match="no ONNX model that ONNX Runtime reads"):
        load_model(tmp_path / "m.onnx")
    with pytest.raises(UserError, match="can't read"):
        load_model(tmp_path / "none.onnx")
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 7, 7, 7])
    node = helper.make_node("Identity", ["x"], ["y"])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1, 7, 7, 7])
    made = helper.make_model(
        helper.make_graph([node], "g", [value], [out]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    with pytest.raises(UserError, match=r"doesn't take one batch of images.*x tensor\(float\)"):
        OnnxClassifier.of(made.SerializeToString())


def test_the_session_needs_no_torch() -> None:
    import subprocess

    code = "import sys, unmask.models.session; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- transformers, timm, torchvision -----------------------------------------------------------


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("vit")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=16,
        patch_size=8,
        id2label={0: "cat", 1: "dog", 2: "owl"},
        label2id={"cat": 0, "dog": 1, "owl": 2},
    )
    torch.manual_seed(5)
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    stated = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 16, "width": 16},
        "resample": 3,
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.4],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(stated))
    return folder


def test_a_folder_of_transformers_is_read_with_its_preprocessing(vit: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = load_model(f"hf:{vit}")
    assert model.class_names == ("cat", "dog", "owl")
    assert model.input_shape == (3, 16, 16)
    steps = model.preprocessing
    assert (steps.size, steps.interpolation, steps.scale) == ((16, 16), "bicubic", 1.0)
    own = transformers.ViTForImageClassification.from_pretrained(vit).eval()
    pixels = torch.rand(2, 3, 16, 16)
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]))
    torch.testing.assert_close(model(pixels), own((pixels - mean) / std).logits)
    # A folder is known by its config without the prefix, and random weights are the same twice.
    torch.testing.assert_close(load_model(vit)(pixels), model(pixels))
    drawn = [load_model(f"hf:{vit}@random")(pixels) for _ in range(2)]
    assert torch.equal(*drawn)
    assert not torch.allclose(drawn[0], model(pixels))


@pytest.mark.parametrize(
    ("stated", "line"),
    [
        ("{no json", "can't be used"),
        ("[1]", "can't be used"),
        ('{"image_mean": [0.5, 0.5]}', "2 numbers for 3 channels"),
        ('{"size": {"height": "tall", "width": 4}}', "can't be used"),
        ('{"image_std": 0}', "std isn't usable"),
    ],
)
def test_a_processor_that_says_nonsense_is_named(vit: Path, stated: str, line: str) -> None:
    before = (vit / "preprocessor_config.json").read_text()
    try:
        (vit / "preprocessor_config.json").write_text(stated)
        with pytest.raises(UserError, match=line):
            load_model(f"hf:{vit}")
        (vit / "preprocessor_config.json").write_text('{"image_mean": 0.5, "image_std": 0.25}')
        steps = load_model(f"hf:{vit}").preprocessing
        assert (steps.size, steps.mean, steps.std) == ((16, 16), (0.5,) * 3, (0.25,) * 3)
    finally:
        (vit / "preprocessor_config.json").write_text(before)


def test_code_of_a_repository_is_refused_before_its_config_is_read(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    config = {"model_type": "own", "auto_map": {"AutoModel": "code.Own"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"code from its repository.*got AutoModel"):
        load_model(f"hf:{tmp_path}")


SMALL: dict[str, dict[str, Any]] = {
    "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1]},
    "ConvNext": {"hidden_sizes": [8, 8], "depths": [1, 1], "num_stages": 2, "image_size": 32},
    "MobileNetV2": {"depth_multiplier": 0.35, "image_size": 32},
    "Swin": {"image_size": 32, "embed_dim": 8, "depths": [1], "num_heads": [1], "window_size": 4},
    "Beit": {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "image_size": 32,
        "patch_size": 8,
    },
}


@pytest.mark.parametrize("architecture", SMALL)
def test_architectures_of_transformers_are_checked_by_name(
    architecture: str, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    from unmask.fool.source import load_victim
    from unmask.shift.target import as_target

    labels = {"id2label": dict(enumerate("abc")), "label2id": {"a": 0, "b": 1, "c": 2}}
    config = getattr(transformers, f"{architecture}Config")(**SMALL[architecture], **labels)
    config.save_pretrained(tmp_path)
    name = f"hf:{tmp_path}@random"
    model = load_model(name)
    assert isinstance(model, Wrapped)
    assert "no config says otherwise" in model.describe()
    pixels = torch.rand(2, 3, 32, 32)
    logits = model(pixels)
    assert logits.shape == (2, 3)
    # Every question meets the same model under the same name.
    assert as_target(name).class_names == load_victim(name).class_names == ("a", "b", "c")
    torch.testing.assert_close(as_target(name).logits(pixels), logits.detach())
    torch.testing.assert_close(load_victim(name).module(pixels).detach(), logits.detach())


@pytest.mark.parametrize(("side", "crop"), [(224, 0.875), (384, 1.0)])
def test_convnext_crops_small_images_alone(side: int, crop: float, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    transformers.ConvNextConfig(**SMALL["ConvNext"]).save_pretrained(tmp_path)
    processor = {
        "image_processor_type": "ConvNextImageProcessor",
        "size": {"shortest_edge": side},
        "crop_pct": 0.875,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    steps = load_model(f"hf:{tmp_path}@random").preprocessing
    assert (steps.size, steps.crop) == ((side, side), crop)


def test_a_prefix_that_is_nearly_one_of_the_zoo_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "timings.log").touch()
    for wrong in ("tim", "huggingface", "torch_vision"):
        with pytest.raises(UserError, match=r"unknown library of models.*timm, torchvision, hf"):
            load_model(f"{wrong}:resnet18")
    with pytest.raises(UserError, match="there is no module my_nets_of_old"):
        load_model("my_nets_of_old:make")


def test_transformers_pickles_and_foreign_code_are_refused(vit: Path, tmp_path: Path) -> None:
    config = json.loads((vit / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(UserError, match="holds no safetensors, and pickles"):
        load_model(f"hf:{tmp_path}")
    remote = config | {"auto_map": {"AutoConfig": "theirs.Config"}, "model_type": "vit"}
    (tmp_path / "config.json").write_text(json.dumps(remote))
    with pytest.raises(UserError, match="wants code from its repository"):
        load_model(f"hf:{tmp_path}@random")
    with pytest.raises(UserError, match="no such folder"):
        load_model("hf:./nowhere")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="is no image classifier: got a Bert model"):
        load_model(f"hf:{tmp_path}@random")


def test_timm_is_asked_as_it_documents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """timm itself needs torchvision, which doesn't go with every build of PyTorch."""
    asked: list[tuple[str, bool]] = []

    def create_model(name: str, *, pretrained: bool, num_classes: int = 7) -> nn.Module:
        asked.append((name, pretrained))
        made = Mean(num_classes)
        made.num_classes = num_classes  # type: ignore[assignment]
        return made

    timm = types.ModuleType("timm")
    timm.is_model = lambda name: name == "resnet18"  # type: ignore[attr-defined]
    timm.list_models = lambda: ["resnet18"]  # type: ignore[attr-defined]
    timm.create_model = create_model  # type: ignore[attr-defined]
    config = {
        "input_size": (3, 8, 10),
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
    }
    timm.data = types.SimpleNamespace(  # type: ignore[attr-defined]
        resolve_model_data_config=lambda network: config,
        infer_imagenet_subset=lambda network: "tiny" if network.num_classes == 7 else None,
        ImageNetInfo=lambda subset: types.SimpleNamespace(label_names=lambda: list("abcdefg")),
    )
    monkeypatch.setitem(sys.modules, "timm", timm)
    model = load_model("timm:resnet18.a1_in1k")
    assert asked == [("resnet18.a1_in1k", True)]
    assert model.input_shape == (3, 8, 10)
    assert model.preprocessing.crop == 0.95
    assert model.class_names == tuple("abcdefg")
    other = Mean(7)
    save_file(other.state_dict(), tmp_path / "w.safetensors")
    filled = load_model(f"timm:resnet18@{tmp_path / 'w.safetensors'}")
    assert asked[-1] == ("resnet18", False)
    pixels = torch.rand(2, 3, 8, 10)
    torch.testing.assert_close(filled(pixels), other((pixels - 0.5) / 0.25))
    # Weights of a network that was fine-tuned to other classes.
    tuned = Mean(3)
    save_file(tuned.state_dict(), tmp_path / "tuned.safetensors")
    filled = load_model(f"timm:resnet18@{tmp_path / 'tuned.safetensors'}")
    assert filled.class_names is None
    torch.testing.assert_close(filled(pixels), tuned((pixels - 0.5) / 0.25))
    with pytest.raises(UserError, match="did you mean 'resnet18'"):
        load_model("timm:resnet81")
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda name, pretrained: create_model(name, pretrained=pretrained, num_classes=0),
    )
    with pytest.raises(UserError, match="gives features and no classes"):
        load_model("timm:resnet18@random")


def test_a_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"needs timm.*pip install 'unmask\[zoo\]'"):
        load_model("timm:resnet18")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mean"),
    [
        ("resnet18", 0.485),
        ("mobilenetv3_small_100", 0.485),
        ("vit_tiny_patch16_224", 0.5),
        ("convnext_atto", 0.485),
        ("efficientnet_lite0", 0.485),
    ],
)
def test_architectures_of_timm_are_checked_by_name(name: str, mean: float) -> None:
    try:
        import timm
    except Exception as error:  # torchvision raises where it doesn't go with this PyTorch
        pytest.skip(f"timm can't be imported: {error}")
    model = load_model(f"timm:{name}@random")
    assert isinstance(model, Wrapped)
    assert model.preprocessing.mean[0] == mean
    assert model.input_shape == (3, 224, 224)
    pixels = torch.rand(2, 3, 64, 64)
    own = timm.create_model(name).eval()
    own.load_state_dict(model.network.state_dict())
    torch.testing.assert_close(model(pixels), own(model.preprocessing(pixels)))
    with pytest.raises(UserError, match=r"did you mean .* are known"):
        load_model(f"timm:{name[:-1]}@random")
