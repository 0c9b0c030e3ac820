"""Whole files of every kind that is read, with bytes changed, cut out and put in: read or refused.

Each reader answers or raises UserError, whatever the bytes are. A few examples each run with the
other tests; `make fuzz` runs UNMASK_FUZZ of them, the seeds being whole files made here.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from unmask.data.detection.dataset import read_annotated
from unmask.data.folder import load_folder
from unmask.data.listing import list_pictures
from unmask.data.picture import open_picture
from unmask.errors import UserError
from unmask.mask.runtime.calibration import DetectorFacts
from unmask.models.card import ModelCard
from unmask.models.checkpoint import TensorFile
from unmask.saved_state import parse_json, read_arrays

EXAMPLES = int(os.environ.get("UNMASK_FUZZ", "25"))

CARD = {
    "architecture": "block_cnn", "settings": {"a": 1}, "input_shape": [1, 28, 28], "mean": [0.5],
    "std": [0.5], "class_names": ["a", "b"], "facts": {}, "weights_sha256": "",
    "format": "unmask-classifier/1",
}  # fmt: skip
SHIPPED = {
    "class_names": ["a"], "onnx_sha256": "0", "weights_sha256": "0", "facts": {},
    "format": "unmask-mask-detector/1",
}  # fmt: skip
FACTS = {
    "class_names": '["a", "b"]', "scale": "1.6", "stretch": "true", "stride": "4",
    "thresholds": '{"face": 0.5}', "calibration": '{"slope": 1.0}', "version": "1",
}  # fmt: skip
VOC = (
    b'<?xml version="1.0"?><annotation><filename>0.png</filename><size><width>8</width>'
    b"<height>8</height><depth>3</depth></size><object><name>a</name><bndbox><xmin>1</xmin>"
    b"<ymin>1</ymin><xmax>5</xmax><ymax>6</ymax></bndbox></object></annotation>"
)
COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "0.png", "width": 8, "height": 8}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 5]}],
        "categories": [{"id": 1, "name": "a"}],
    }
).encode()
YOLO = b"0 0.5 0.5 0.25 0.25\n0 0.1 0.1 0.1 0.1\n"


def image(kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(buffer, kind)
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
            archive.writestr(name, image())
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=np.arange(6.0), b=np.zeros((2, 3), np.int64))
    return buffer.getvalue()


def _tensors(path: Path) -> None:
    file = TensorFile(path)
    file.tensors()
    file.match(torch.nn.Linear(2, 3))


def _annotated(path: Path) -> None:
    """Read the changed annotation beside its image, as the whole folder."""
    name = {".xml": "0.xml", ".json": "annotations.json", ".txt": "0.txt"}[path.suffix]
    folder = path.parent / f"set{path.suffix}"
    folder.mkdir(exist_ok=True)
    (folder / "0.png").write_bytes(image())
    if path.suffix == ".txt":
        (folder / "classes.txt").write_text("a\n")
    (folder / name).write_bytes(path.read_bytes())
    read_annotated(folder)


def _listed(path: Path) -> None:
    with list_pictures(path) as listing:
        for file in listing.files:
            try:
                file.read()
            except UserError:
                continue


def _facts(path: Path) -> None:
    try:
        metadata = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return
    if isinstance(metadata, dict):
        try:
            DetectorFacts.parse({str(k): str(v) for k, v in metadata.items()})
        except ValueError as error:
            raise UserError(str(error)) from error


# What is read, as what, and a whole file of it.
READERS: dict[str, tuple[Callable[[Path], object], str, bytes]] = {
    "model card": (ModelCard.read, ".json", json.dumps(CARD).encode()),
    "detector's card": (ModelCard.read, ".json", json.dumps(SHIPPED).encode()),
    "ONNX metadata": (_facts, ".json", json.dumps(FACTS).encode()),
    "safetensors": (
        _tensors,
        ".safetensors",
        save({"weight": torch.ones(3, 2), "bias": torch.ones(3)}, {"header": "{}"}),
    ),
    "VOC": (_annotated, ".xml", VOC),
    "COCO": (_annotated, ".json", COCO),
    "YOLO": (_annotated, ".txt", YOLO),
    "zip listing": (_listed, ".zip", zipped()),
    "zip of classes": (lambda p: load_folder(p, size=(8, 8), channels=3), ".zip", zipped()),
    "PNG": (lambda p: open_picture(p.read_bytes()), ".png", image()),
    "JPEG": (lambda p: open_picture(p.read_bytes()), ".jpg", image("JPEG")),
    "GIF": (lambda p: open_picture(p.read_bytes()), ".gif", image("GIF")),
    "TIFF": (lambda p: open_picture(p.read_bytes()), ".tif", image("TIFF")),
    "arrays": (read_arrays, ".npz", npz()),
    "JSON": (lambda p: parse_json(p.read_bytes(), p), ".json", json.dumps(CARD).encode()),
}

_POSITION = st.floats(0, 1, exclude_max=True)
_BYTES = st.binary(max_size=8) | st.sampled_from(
    [
        b"\x00", b"\xff" * 4, b"\x7f\xff\xff\xff", b"-1", b"1e999", b"NaN", b"null", b"[" * 200,
        b'"', b"{", b"}", b"\xed\xb3\xbf", b"\x1b[2J", b"../", b"&x;", b"9" * 40, b"0",
    ]
)  # fmt: skip
# Where, how much of what is there goes, and what comes instead.
EDITS = st.lists(st.tuples(_POSITION, st.integers(0, 12), _BYTES), min_size=1, max_size=5)


def edited(content: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """Return the bytes with each edit made in turn."""
    for position, gone, new in edits:
        at = int(position * (len(content) + 1))
        content = content[:at] + new + content[at + gone :]
    return content


# A request to the server: the path, what is asked for, the body and the headers.
_PATHS = st.sampled_from(
    ["/api/detect", "/api/classify", "/api/health", "/api/openapi.json", "/reports/page", "/api/x",
     "/api/detect/", "/api//detect", "/api/%2e%2e/detect", "/api/detect%00", "/config",
     "/gradio_api/queue/data", "/gradio_api/run/predict", "/gradio_api/info", "/static/x"]
)  # fmt: skip
_VALUES = st.text(max_size=40) | st.sampled_from(
    ["nan", "1e999", "-1", "0", "1_0", "٣", "mnist", "faces", "../../etc/passwd", "\0", "1" * 400]
)  # fmt: skip
_QUERIES = st.dictionaries(
    st.sampled_from(["threshold", "smallest", "model", "name", "token", "x"]), _VALUES, max_size=3
)
_HEADERS = st.dictionaries(
    st.sampled_from(
        ["host", "origin", "content-type", "content-length", "authorization", "cookie",
         "transfer-encoding", "x-forwarded-for", "content-encoding", "accept", "range"]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
    | st.sampled_from(
        ["127.0.0.1", "[::1]:80", "[::1", "http://127.0.0.1", "null", "http://[", "Basic =",
         "Bearer", "multipart/form-data", "-1", "chunked", "gzip", "bytes=0-"]
    ),
    max_size=3,
)  # fmt: skip
_ANSWERS = {200, 304, 307, 400, 401, 403, 404, 405, 408, 413, 415, 416, 422, 429, 501, 503}


def test_a_changed_request_is_answered_or_refused_in_one_line() -> None:
    pytest.importorskip("gradio")
    from starlette.testclient import TestClient

    from unmask.web.limits import Limits
    from unmask.web.server import Settings, application

    served = application(Settings(reports=(), limits=Limits(size=4096, pixels=4096, rate=0)))

    with TestClient(served, base_url="http://127.0.0.1:7860") as client:

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
        @given(
            st.sampled_from(["GET", "POST", "HEAD", "PUT", "OPTIONS", "x"]),
            _PATHS, _QUERIES, _HEADERS, EDITS | st.just([]),
        )  # fmt: skip
        def check(
            method: str,
            path: str,
            query: dict[str, str],
            headers: dict[str, str],
            edits: list[tuple[float, int, bytes]],
        ) -> None:
            content = edited(image(), edits) if method == "POST" else None
            answer = client.request(
                method, path, params=query, headers=headers, content=content, follow_redirects=False
            )
            assert answer.status_code in _ANSWERS
            assert "Traceback" not in answer.text
            if path.startswith("/api/") and answer.status_code >= 400 and method != "HEAD":
                line = answer.json()["error"]
                assert "\n" not in line
                assert len(line) < 2000

        check()


@pytest.mark.parametrize("reader", READERS)
def test_a_changed_file_is_read_or_refused_in_one_line(reader: str, tmp_path: Path) -> None:
    read, suffix, content = READERS[reader]
    path = tmp_path / f"x{suffix}"

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(EDITS)
    def check(edits: list[tuple[float, int, bytes]]) -> None:
        path.write_bytes(edited(content, edits))
        line = ""
        try:
            read(path)
        except UserError as error:
            line = str(error)
        assert "\n" not in line
        assert len(line) < 2000

    path.write_bytes(content)
    read(path)
    check()
