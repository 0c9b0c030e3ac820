import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]

def instruction_sets() -> list[str]: ...
def peak_flops(isa: str) -> float: ...

class NativeMlp:
    def __init__(
        self,
        isa: str,
        inputs: int,
        classes: int,
        depth: int,
        width: int,
        batch: int,
        activation: int,
        loss: int,
        optimizer: int,
        learning_rate: float,
    ) -> None: ...
    def set_layer(
        self, layer: int, weights: NDArray[np.float32], biases: NDArray[np.float32], /
    ) -> None: ...
    def get_layer(
        self, layer: int, weights: NDArray[np.float32], biases: NDArray[np.float32], /
    ) -> None: ...
    def train(
        self, pixels: Pixels, labels: Labels, order: NDArray[np.uint32], stop: NDArray[np.uint8], /
    ) -> tuple[float, float, int, bool]: ...
    def evaluate(
        self, pixels: Pixels, labels: Labels, stop: NDArray[np.uint8], /
    ) -> tuple[float, float, bool]: ...
    def probe(
        self,
        pixels: Pixels,
        labels: Labels,
        dead_pixels: Pixels,
        dead_labels: Labels,
        statistics: NDArray[np.float64],
        stop: NDArray[np.uint8],
        /,
    ) -> None: ...
    def gradients(self, pixels: Pixels, labels: Labels, out: NDArray[np.float64], /) -> None: ...
