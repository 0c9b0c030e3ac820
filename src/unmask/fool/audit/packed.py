"""A network on its way to another process: what makes it, and its weights as safetensors."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from safetensors.torch import load, save
from torch import nn

from unmask.errors import UserError
from unmask.models.checkpoint import ModelCard
from unmask.models.classifier import Classifier
from unmask.models.cnn import ARCHITECTURES, build
from unmask.models.imported import load_model


@dataclass(frozen=True)
class Packed:
    """A network as plain values.

    path: the import path that makes it, or None for one of Unmask's architectures, whose model card
    is card, as JSON. state: its parameters and buffers, as safetensors. modes: which of its
    modules are in training mode, in the order of nn.Module.modules.
    """

    path: str | None
    card: str
    state: bytes
    modes: tuple[bool, ...]

    @staticmethod
    def of(module: nn.Module, path: str | None) -> Packed:
        """Pack a network. Raises UserError for one that nothing but itself says how to make."""
        card = ""
        if path is None:
            if not isinstance(module, Classifier) or module.card.architecture not in ARCHITECTURES:
                raise UserError(
                    "this network can't travel to another process",
                    got=f"a {type(module).__name__} that was made in this one",
                    do="give its import path (load_subject), or one of Unmask's classifiers",
                )
            card = json.dumps(asdict(module.card))
        # Clones, since the format refuses tensors that share memory.
        state = {k: v.detach().cpu().clone().contiguous() for k, v in module.state_dict().items()}
        return Packed(path, card, save(state), tuple(m.training for m in module.modules()))

    def module(self) -> nn.Module:
        """Return the network, on the CPU. Raises UserError when its import path leads nowhere."""
        module = load_model(self.path) if self.path is not None else self._classifier()
        try:
            module.load_state_dict(load(self.state))
        except RuntimeError as error:
            raise UserError(
                f"{self.path} makes another network here than where it was packed",
                got=" ".join(str(error).split())[:200],
                do="install the same code on every node",
            ) from error
        for part, training in zip(module.modules(), self.modes, strict=True):
            part.training = training
        return module

    def _classifier(self) -> Classifier:
        entries = json.loads(self.card)
        for name in ("input_shape", "mean", "std", "class_names"):
            entries[name] = tuple(entries[name])
        card = ModelCard(**entries)
        network = build(card.architecture, card.settings, card.input_shape, len(card.class_names))
        return Classifier(network, card)
