"""What a watch records at every step: labels, images that come again, a replaced weight."""

import numpy as np
import pytest
import torch
from torch import nn

from unmask.flow.measure.inputs import TOGETHER, InputLedger
from unmask.flow.measure.parameters import Witness


@pytest.mark.parametrize("batches", [1, TOGETHER - 1, TOGETHER, 3 * TOGETHER + 5])
def test_every_label_is_counted_once(batches):
    rng = np.random.default_rng(0)
    ledger, all_labels = InputLedger(), []
    for _ in range(batches):
        labels = rng.integers(-100, 7, rng.integers(1, 40))
        all_labels.append(labels)
        ledger.labelled(torch.from_numpy(labels))
    facts = ledger.read()
    values, counts = np.unique(np.concatenate(all_labels), return_counts=True)
    assert facts.classes == dict(zip(values.tolist(), counts.tolist(), strict=True))
    assert facts.batches == batches
    assert ledger.read() == facts


def test_batches_sorted_by_class_hold_few_of_the_classes():
    ledger, mixed = InputLedger(), InputLedger()
    labels = torch.arange(10).repeat_interleave(32 * 10)
    for batch in labels.split(32):
        ledger.labelled(batch)
    for batch in labels[torch.randperm(len(labels))].split(32):
        mixed.labelled(batch)
    assert ledger.read().few == 100
    assert mixed.read().few == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 28, 28), (5,)])
def test_images_that_come_again_are_known_in_any_memory(dtype, shape):
    images = torch.rand(96, *shape).to(dtype)
    again, new = images[:24], torch.rand(24, *shape).to(dtype)
    if len(shape) == 3:
        again = again.contiguous(memory_format=torch.channels_last)
    ledger = InputLedger()
    for batch in images.split(32):
        ledger.trained((batch,), probed=False)
    ledger.validated((torch.cat([again, new]),))
    assert ledger.read().seen == 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_a_witness_sees_that_a_weight_changed_or_was_replaced(memory, dtype):
    model = nn.Conv2d(8, 16, 3).to(dtype)
    model.weight.data = model.weight.data.contiguous(memory_format=memory)
    witness = Witness(model)
    first = witness.read()
    assert first is not None
    assert np.array_equal(first, witness.read())
    with torch.no_grad():
        model.weight += 1
    moved = witness.read()
    assert np.allclose(moved, first + 1, atol=0.01)
    assert not np.array_equal(moved, first)
    model.weight.data = model.weight.data.clone() * 2
    assert np.allclose(witness.read(), 2 * moved)


def test_a_model_without_a_matrix_has_no_witness():
    assert Witness(nn.BatchNorm2d(3)).read() is None
