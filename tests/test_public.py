"""The names that `import unmask` offers."""

from __future__ import annotations

import subprocess
import sys

import pytest

import unmask


@pytest.mark.parametrize("name", unmask.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(unmask, name).__name__.removeprefix("unmask.") == name
    assert name in dir(unmask)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = unmask.nothing_of_the_kind


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import sys, unmask; print({'torch', 'numpy', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.strip() == b"set()"


def test_a_classifier_is_read_without_torchs_compiler() -> None:
    program = (
        "import sys, unmask; unmask.load_model('cifar10'); print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.split() == [b"False"]


def test_the_detector_comes_without_torch() -> None:
    program = "import sys, unmask; print(unmask.MaskDetector.__name__, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.split() == [b"MaskDetector", b"False"]
