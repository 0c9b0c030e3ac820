"""loop: faults of a whole loop that people post, and healthy loops that look like them."""

from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

from made_up_clusters import batch
from unmask.flow.watch import Watch
from unmask.verdict import Verdict


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 5))


def loss_of(model, i):
    x, y = batch(i)
    return functional.cross_entropy(model(x), y)


def watched(loop) -> dict[str, Verdict]:
    with Watch(every=1000) as seen:
        loop()
    return {v.kind: v for v in seen.verdicts if v.severity != "note"}


def train(model, before=None, after=None, steps: int = 24, optimizer=None, scaler=None) -> None:
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for i in range(steps):
        optimizer.zero_grad()
        loss = loss_of(model, i)
        (loss if scaler is None else scaler.scale(loss)).backward()
        if before is not None:
            before(model, i, optimizer)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        if after is not None:
            after(model, i, optimizer)


def clip(model, i, optimizer):
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)


def test_clipping_after_the_step():
    found = watched(lambda: train(net(), after=clip))
    assert found.keys() == {"clipping without effect"}
    assert "test_loop.py" in (found["clipping without effect"].location or "")
    assert not watched(lambda: train(net(), before=clip))


def scaler():
    return torch.amp.GradScaler("cpu", init_scale=2.0**12)


def test_gradients_that_are_clipped_before_they_are_unscaled():
    found = watched(lambda: train(net(), before=clip, scaler=scaler()))
    assert "unscale_" in found["gradients not unscaled"].fix
    given = scaler()

    def unscaled(model, i, optimizer):
        given.unscale_(optimizer)
        clip(model, i, optimizer)

    assert not watched(lambda: train(net(), before=unscaled, scaler=given))


def test_a_step_with_scaled_gradients():
    def loop():
        model, given = net(), scaler()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for i in range(10):
            optimizer.zero_grad()
            given.scale(loss_of(model, i)).backward()
            optimizer.step()

    assert watched(loop).keys() == {"gradients not unscaled"}


def test_gradients_that_are_zeroed_instead_of_used():
    def loop(each: int):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for i in range(66):
            if each > 1 or i % 3 == 0:
                optimizer.zero_grad()
            loss_of(model, i).backward()
            if i % (each if each > 1 else 3) == 2:
                optimizer.step()

    found = watched(lambda: loop(22))
    assert found.keys() == {"no step"}
    assert "zeroed" in found["no step"].message
    assert not watched(lambda: loop(1))


def test_an_attack_on_the_same_labels_may_zero_gradients():
    def loop():
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for i in range(8):
            x, y = batch(i)
            shift = torch.zeros_like(x, requires_grad=True)
            for _ in range(12):
                model.zero_grad()
                functional.cross_entropy(model(x + shift), y).backward()
                shift.data += 0.01 * shift.grad.sign()
            optimizer.zero_grad()
            functional.cross_entropy(model(x + shift.detach()), y).backward()
            optimizer.step()

    assert not watched(loop)


def test_the_optimiser_of_another_model():
    def loop():
        other = torch.optim.Adam(net().parameters())
        train(net(), optimizer=other, steps=6)

    found = watched(loop)
    assert found.keys() == {"no step"}
    assert "other weights" in found["no step"].message


def by_hand():
    model = net()
    for i in range(70):
        model.zero_grad()
        loss_of(model, i).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.05 * p.grad


def of_an_image():
    model, image = net().eval(), torch.randn(4, 20, requires_grad=True)
    optimizer = torch.optim.Adam([image], lr=0.05)
    for _ in range(70):
        optimizer.zero_grad()
        model(image)[:, 3].sum().neg().backward()
        optimizer.step()


def of_features():
    judge, model = net().eval(), nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 20))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for i in range(70):
        x, _ = batch(i)
        optimizer.zero_grad()
        functional.mse_loss(judge(model(x)), judge(x).detach()).backward()
        optimizer.step()


@pytest.mark.parametrize("loop", [by_hand, of_an_image, of_features])
def test_models_that_no_optimiser_need_hold(loop):
    assert not watched(loop)


def test_a_model_that_is_frozen_as_a_whole():
    def loop():
        model = net().requires_grad_(False)
        optimizer = torch.optim.Adam(model.parameters())
        for i in range(4):
            loss_of(model, i).requires_grad_().backward()
            optimizer.step()

    assert watched(loop)["weights that don't move"].severity == "error"


def test_an_optimiser_for_every_step():
    def loop(times: int):
        model = net()
        for _ in range(times):
            train(model, steps=60 // times)

    assert watched(lambda: loop(60)).keys() == {"optimiser made anew"}
    assert not watched(lambda: loop(3))


def test_validation_in_training_mode_of_one_batch_an_epoch():
    def now_and_then(model, i, optimizer):
        with torch.no_grad():
            if i % 12 == 11:
                model(batch(1000)[0])

    def each_step(model, i, optimizer):
        with torch.no_grad():
            model(batch(2000 + i)[0])

    def the_same(model, i, optimizer):
        # The accuracy of the batch that was just trained on.
        if i % 12 == 11:
            with torch.no_grad():
                model(seen[0])

    assert "wrong mode" in watched(lambda: train(net(), after=now_and_then, steps=40))
    assert not watched(lambda: train(net(), after=each_step))
    seen = [batch(0)[0]]

    def loop():
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for i in range(40):
            seen[0], y = batch(i)
            optimizer.zero_grad()
            functional.cross_entropy(model(seen[0]), y).backward()
            optimizer.step()
            the_same(model, i, optimizer)

    assert not watched(loop)


def test_layers_that_are_skipped_at_random():
    class Skipping(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(20, 20), nn.Linear(20, 5)
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return self.head(x + self.body(x).relu() if self.calls > 3 else x)

    assert not watched(lambda: train(Skipping()))


def test_slices_of_a_model_are_parts_of_it():
    class Sliced(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = net()

        def forward(self, x):
            return self.layers[2:](self.layers[:2](x))

    with Watch(every=1000) as seen:
        train(Sliced(), steps=12)
    assert [m.model for m in seen.report.models] == ["Sliced"]
    assert not [v for v in seen.verdicts if v.severity != "note"]


def fitted(labels, loss, steps: int = 20) -> dict[str, Verdict]:
    def loop():
        model = net()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for i in range(steps):
            optimizer.zero_grad()
            loss(model(batch(i)[0]), labels(i)).backward()
            optimizer.step()

    return watched(loop)


def test_a_rare_class_is_no_constant_label():
    def rare(i):
        return (torch.arange(32) == 31 - 64 * (i % 3 < 2)).long()

    def cross_entropy(output, y):
        return functional.cross_entropy(output, y)

    assert fitted(rare, cross_entropy).keys() == {"labels imbalanced"}
    assert "labels constant" in fitted(lambda i: 0 * rare(i), cross_entropy)


def test_rare_classes_are_no_sorted_batches():
    def rare(i):
        labels = torch.zeros(32, dtype=torch.long)
        labels[i % 32] = i % 5
        return labels

    def in_order(i):
        return torch.full((32,), i // 6)

    def cross_entropy(output, y):
        return functional.cross_entropy(output, y)

    assert fitted(rare, cross_entropy, steps=30).keys() == {"labels imbalanced"}
    assert "batches sorted by class" in fitted(in_order, cross_entropy, steps=30)


def test_targets_that_are_no_numbers():
    def targets(i):
        return torch.full((32,), math.nan if i == 6 else 1.0)

    found = fitted(targets, lambda output, y: functional.mse_loss(output[:, 0], y), steps=8)
    assert "the targets of step 7" in found["bad data"].message


def test_a_plateau_schedule_at_every_batch():
    def loop():
        model = net()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        train(model, after=lambda *_: plateau.step(1.0), optimizer=optimizer, steps=30)

    found = watched(loop)["learning rate vanishes"]
    assert "at every batch" in found.cause


def losses_of_nothing(p, y):
    return -p.softmax(1).gather(1, y[:, None]).log().mean()


def test_an_operation_of_a_loss_by_hand_that_makes_infinity():
    def loop():
        model = net()
        optimizer = torch.optim.Adam(model.parameters())
        for i in range(4):
            x, y = batch(i)
            optimizer.zero_grad()
            losses_of_nothing(1e4 * model(x), y).backward()
            optimizer.step()

    found = watched(loop)["not a number"]
    assert found.message.startswith("log makes infinity")


def test_a_loss_that_lost_its_graph_is_placed():
    def loop():
        model = net()
        optimizer = torch.optim.Adam(model.parameters())
        for i in range(6):
            optimizer.zero_grad()
            loss_of(model, i).data.requires_grad_().backward()
            optimizer.step()

    found = watched(loop)["no graph"]
    assert "test_loop.py" in (found.location or "")
    assert "lost before backward" in found.cause


def test_maximize():
    def loop():
        model = net()
        train(model, optimizer=torch.optim.Adam(model.parameters(), maximize=True))

    assert "maximize" in watched(loop)["wrong loss"].fix


def test_a_loss_that_does_not_see_its_images_in_a_large_batch():
    def mean_of(output, y):
        return functional.cross_entropy(output.mean(0, keepdim=True).expand_as(output), y)

    def loop(loss):
        model = net()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for i in range(26):
            x, y = batch(i, 80)
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()

    assert "loss independent of the images" in watched(lambda: loop(mean_of))
    assert not watched(lambda: loop(lambda output, y: functional.cross_entropy(output, y)))


@pytest.mark.parametrize(("decay", "told"), [(1.0, True), (0.99, False)])
def test_an_average_that_is_written_to_and_never_changes(decay, told):
    model = net()
    average = copy.deepcopy(model).requires_grad_(False).eval()

    def run():
        for _epoch in range(3):
            for _ in range(12):
                train(model, steps=1)
                with torch.no_grad():
                    for a, b in zip(average.parameters(), model.parameters(), strict=True):
                        a.mul_(decay).add_(b, alpha=1 - decay)
            with torch.no_grad():
                average(torch.randn(8, 20))

    found = watched(run).get("weights that don't move")
    assert (found is not None) == told
    assert found is None or "copy" in found.message


@pytest.mark.parametrize("updates", [False, True])
def test_a_copy_that_is_kept_or_updated_now_and_then_is_no_average(updates):
    model = net()
    target = copy.deepcopy(model).requires_grad_(False).eval()

    def run():
        for i in range(30):
            with torch.no_grad():
                target(torch.randn(8, 20))
            train(model, steps=1)
            if updates and i % 10 == 9:
                target.load_state_dict(model.state_dict())

    assert "weights that don't move" not in watched(run)


class Texts(nn.Module):
    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(20, 16), nn.Linear(16, 5)
        self.layer = nn.GRU(16, 16, batch_first=batch_first)

    def forward(self, x):
        return self.head(self.layer(self.words(x))[0][:, -1])


@pytest.mark.parametrize("batch_first", [True, False])
def test_texts_that_are_mixed(batch_first):
    model = Texts(batch_first)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for _ in range(30):
            x = torch.randint(20, (16, 10))
            optimizer.zero_grad()
            functional.cross_entropy(model(x), x[:, 0] % 5).backward()
            optimizer.step()

    assert ("images mixed" in watched(run)) != batch_first


@pytest.mark.parametrize("told", [True, False])
def test_an_average_mixed_the_wrong_way_round(told):
    model = net()
    average = copy.deepcopy(model)

    def mix(model, i, optimizer):
        to, of = (model, average) if told else (average, model)
        with torch.no_grad():
            for a, b in zip(to.parameters(), of.parameters(), strict=True):
                a.mul_(0.02 if told else 0.98).add_(b, alpha=0.98 if told else 0.02)

    found = watched(lambda: train(model, after=mix, steps=40))
    assert [v.severity for v in found.values()] == ["error"] * told
    assert not told or "most of the way" in found["weights drawn anew"].message


def test_lookahead_and_inner_loops_that_start_anew_are_no_average():
    def lookahead(model, i, optimizer):
        if i % 5 == 4:
            with torch.no_grad():
                for slow, fast in zip(kept, model.parameters(), strict=True):
                    slow.lerp_(fast, 0.5)
                    fast.copy_(slow)

    model = net()
    kept = [p.detach().clone() for p in model.parameters()]
    assert not watched(lambda: train(model, after=lookahead, steps=60))


def regress(targets, steps: int = 320, rate: float = 1e-2):
    model = nn.Sequential(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for i in range(steps):
        x, _ = batch(i)
        optimizer.zero_grad()
        functional.mse_loss(model(x), targets(x)).backward()
        optimizer.step()


@pytest.mark.parametrize("shuffled", [True, False])
def test_a_regression_that_predicts_the_mean(shuffled):
    def targets(x):
        y = x[:, :1] + 0.5 * x[:, 1:2]
        return y[torch.randperm(len(y))] if shuffled else y

    with Watch() as seen:
        regress(targets)
    assert ("no better than the mean" in {v.kind for v in seen.verdicts}) == shuffled


def test_a_collapsed_autoencoder():
    def run(weight):
        body, spread, back = nn.Linear(20, 8), nn.Linear(20, 8), nn.Linear(8, 20)

        class Vae(nn.Module):
            def __init__(self):
                super().__init__()
                self.body, self.spread, self.back = body, spread, back

            def forward(self, x):
                mean, log = self.body(x), self.spread(x)
                return self.back(mean + torch.randn_like(mean) * (log / 2).exp()), mean, log

        model = Vae()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for i in range(320):
            x, _ = batch(i)
            out, mean, log = model(x)
            divergence = -0.5 * (1 + log - mean.square() - log.exp()).sum(1).mean()
            optimizer.zero_grad()
            (functional.mse_loss(out, x) + weight * divergence).backward()
            optimizer.step()

    for weight in (30.0, 1e-4):
        with Watch() as seen:
            run(weight)
        kinds = {v.kind for v in seen.verdicts}
        assert kinds == ({"loss outweighed"} if weight > 1 else set())


class Stateful(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head, self.state = nn.GRU(3, 8, batch_first=True), nn.Linear(8, 2), None

    def forward(self, x):
        states, last = self.cell(x, self.state)
        self.state = last.detach()
        return self.head(states[:, -1])


@pytest.mark.parametrize(
    ("shuffled", "parts", "anew", "told"),
    [
        (True, 1, False, True),
        # A text that goes on from batch to batch, long sequences in parts, and a new start.
        (False, 1, False, False),
        (True, 3, False, False),
        (True, 1, True, False),
    ],
)
def test_a_state_that_is_carried_over(shuffled, parts, anew, told):
    data = torch.utils.data.TensorDataset(torch.randn(96, 6, 3), torch.arange(96) % 2)
    loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=shuffled)
    model = Stateful()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def run():
        for x, y in loader:
            if anew or parts > 1:
                model.state = None
            for part in x.chunk(parts, dim=1):
                optimizer.zero_grad()
                functional.cross_entropy(model(part), y).backward()
                optimizer.step()

    assert ("state carried over" in watched(run)) == told


def penalised(weight: float, steps: int = 320) -> dict[str, Verdict]:
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 5))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    with Watch() as seen:
        for i in range(steps):
            x, y = batch(i)
            penalty = sum(p.square().sum() for p in model.parameters())
            optimizer.zero_grad()
            (functional.cross_entropy(model(x), y) + weight * penalty).backward()
            optimizer.step()
    return {v.kind: v for v in seen.verdicts if v.severity != "note"}


def test_a_penalty_that_outweighs_its_loss():
    assert [v.severity for v in penalised(1.0).values()] == ["error"]
    assert "fell from" in penalised(1.0)["loss outweighed"].message
    assert not penalised(1e-4)


@pytest.mark.parametrize(("rate", "told"), [(1e-6, True), (1e-3, False)])
def test_a_warm_up_to_a_rate_that_is_too_low(rate, told):
    model = nn.Sequential(nn.Linear(20, 256), nn.ReLU(), nn.Linear(256, 5))
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: min(1.0, (i + 1) / 60))
    with Watch() as seen:
        for i in range(220):
            x, y = batch(i)
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()
    found = {v.kind: v for v in seen.verdicts if v.severity != "note"}
    assert [v.severity for v in found.values()] == ["error"] * told
    assert not told or "still that of guessing" in found["learning rate too low"].message


@pytest.mark.parametrize("inverse", [True, False])
def test_weights_of_classes_that_grow_with_their_frequency(inverse):
    counts = torch.tensor([9.0, 3.0, 1.0])
    weights = counts.sum() / counts if inverse else counts / counts.sum()
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for i in range(24):
            x, _ = batch(i, 52)
            y = torch.repeat_interleave(torch.arange(3), 4 * counts.long())
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y, weight=weights).backward()
            optimizer.step()

    found = watched(run)
    assert [v.severity for k, v in found.items() if k == "labels imbalanced"] == (
        [] if inverse else ["error"]
    )


@pytest.mark.parametrize(
    ("factor", "enlarged", "told"), [(1 / 128, 1, True), (0.25, 1, False), (1 / 128, 128, False)]
)
def test_gradients_that_are_divided_by_hand(factor, enlarged, told):
    def divide(model, i, optimizer):
        for p in model.parameters():
            p.grad *= factor

    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def run():
        for i in range(24):
            optimizer.zero_grad()
            (enlarged * loss_of(model, i)).backward()
            divide(model, i, optimizer)
            optimizer.step()

    with Watch() as seen:
        run()
    kinds = {v.kind for v in seen.verdicts if v.severity == "error"}
    assert kinds == ({"gradients clipped away"} if told else set())


def test_a_trunk_whose_gradients_are_made_small_is_meant():
    def slow(model, i, optimizer):
        for p in model[0].parameters():
            p.grad *= 0.01

    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 5))
    with Watch() as seen:
        train(model, before=slow)
    assert "division" not in " ".join(v.cause for v in seen.verdicts)


def test_clipping_is_no_division_by_hand():
    with Watch() as seen:
        train(net(), before=lambda m, i, o: nn.utils.clip_grad_norm_(m.parameters(), 0.02))
    assert "division" not in " ".join(v.cause for v in seen.verdicts)


@pytest.mark.parametrize("related", [True, False])
def test_blank_images_don_t_hide_labels_that_are_unrelated(related):
    def run():
        model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 5))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for i in range(120):
            x, y = batch(i)
            x[::3] = 0
            optimizer.zero_grad()
            labels = y if related else torch.randint(5, y.shape)
            functional.cross_entropy(model(x), labels).backward()
            optimizer.step()

    assert ("labels unrelated to the images" in watched(run)) == (not related)


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_over_the_batch_is_known_by_the_places_of_its_words(batch_first):
    class Reverser(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.places = nn.Embedding(10, 16), nn.Embedding(6, 16)
            self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=batch_first)
            self.head = nn.Linear(16, 10)

        def forward(self, x):
            return self.head(self.layer(self.words(x) + self.places(torch.arange(x.size(1)))))

    model = Reverser()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for _ in range(6):
            x = torch.randint(0, 10, (32, 6))
            optimizer.zero_grad()
            functional.cross_entropy(model(x).flatten(0, 1), x.flip(1).flatten()).backward()
            optimizer.step()

    assert ("images mixed" in watched(run)) == (not batch_first)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (lambda source, words: (source, words[:, 1:]), True),
        (lambda source, words: (source, words[:, :-1]), False),
        # Copying a text: the source is the target, and the decoder reads it a word later.
        (lambda source, words: (words[:, 1:], words[:, :-1]), False),
    ],
)
def test_a_decoder_that_reads_its_targets(given, told):
    class Translator(nn.Module):
        def __init__(self):
            super().__init__()
            self.source, self.words = nn.Embedding(10, 16), nn.Embedding(10, 16)
            self.encoder = nn.GRU(16, 32, batch_first=True)
            self.decoder = nn.GRU(16, 32, batch_first=True)
            self.head = nn.Linear(32, 10)

        def forward(self, source, words):
            _, state = self.encoder(self.source(source))
            return self.head(self.decoder(self.words(words), state)[0])

    model = Translator()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for _ in range(8):
            source, words = torch.randint(0, 10, (32, 7)), torch.randint(0, 10, (32, 8))
            optimizer.zero_grad()
            scores = model(*given(source, words))
            functional.cross_entropy(scores.flatten(0, 1), words[:, 1:].flatten()).backward()
            optimizer.step()

    assert ("target leakage" in watched(run)) == told


def test_texts_that_are_put_together_again_may_be_accumulated():
    model = nn.Sequential(nn.Embedding(10, 16), nn.Linear(16, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for i in range(24):
            x = torch.randint(0, 10, (32, 7))
            functional.cross_entropy(model(x).flatten(0, 1), x.flatten()).backward()
            if i % 2:
                optimizer.step()
                optimizer.zero_grad()

    assert "decoder" not in " ".join(v.message for v in watched(run).values())


@pytest.mark.parametrize(
    ("prefix", "told"), [("backbone.", True), ("", False)], ids=["none", "the trunk"]
)
def test_weights_of_which_none_is_loaded(prefix, told):
    trunk = nn.Sequential(nn.Linear(20, 32), nn.ReLU())
    stored = {prefix + name: value for name, value in trunk.state_dict().items()}
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 5))

    def run():
        model.load_state_dict(stored, strict=False)
        train(model)

    found = watched(run)
    assert [v.severity for v in found.values()] == ["error"] * told
    assert not told or "backbone.0.weight" in found["weights not loaded"].message


@pytest.mark.parametrize(("each", "told"), [(15, True), (1, False)])
def test_a_copy_that_is_evaluated_and_never_written_to(each, told):
    """A teacher is asked at every step; an average that nobody writes to, now and then."""

    def run():
        model = net()
        average = copy.deepcopy(model).requires_grad_(False).eval()

        def asked(model, i, optimizer):
            if i % each == 0:
                with torch.no_grad():
                    average(torch.randn(8, 20))

        train(model, after=asked, steps=60)

    # The copy is gone when the training is judged.
    assert ("weights that don't move" in watched(run)) == told


def test_the_optimiser_of_a_teacher_steps_for_its_student():
    teacher, student = net(), net()
    of_teacher = torch.optim.Adam(teacher.parameters(), lr=1e-3)

    def run():
        train(teacher, optimizer=of_teacher)
        teacher.eval()
        for i in range(12):
            x, _ = batch(i)
            with torch.no_grad():
                aims = teacher(x).softmax(1)
            loss = functional.cross_entropy(student(x), aims)
            of_teacher.zero_grad()
            loss.backward()
            of_teacher.step()

    assert watched(run)["no step"].severity == "error"


@pytest.mark.parametrize(
    ("scale", "told"),
    [
        (lambda x: x * torch.tensor([1.0, 1e-3, 1e-4, 2e-4]), True),
        (lambda x: x * torch.tensor([1.0, 0.2, 3.0, 0.5]), False),
        # Rare answers are small, and no numbers.
        (lambda x: torch.cat([x, (x > 2.5).float() * 1e-3], 1), False),
    ],
)
def test_a_column_that_drowns_the_others(scale, told):
    def run():
        torch.manual_seed(0)
        x = scale(torch.randn(64, 4))
        model = nn.Sequential(nn.Linear(x.shape[1], 16), nn.ReLU(), nn.Linear(16, 1))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(12):
            optimizer.zero_grad()
            functional.mse_loss(model(x), x[:, :1] + 0.1 * torch.randn(64, 1)).backward()
            optimizer.step()

    found = {v.cause for v in watched(run).values()}
    assert ("columns of different size" in found) == told


@pytest.mark.parametrize(
    ("course", "told"), [("anew", True), ("once", False), ("ended", False), ("two", False)]
)
def test_a_schedule_that_is_made_anew_at_each_epoch(course, told):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    made = torch.optim.lr_scheduler.OneCycleLR
    length = 6 if course == "ended" else 24
    schedules = [made(optimizer, 0.05, total_steps=length)]
    if course == "two":
        other = torch.optim.SGD(net().parameters(), lr=0.01)
        schedules.append(made(other, 0.05, total_steps=length))

    def advance(model, i, optimizer):
        if course in ("anew", "ended") and i % 6 == 0 and i:
            schedules[0] = made(optimizer, 0.05, total_steps=length)
        for schedule in schedules:
            if schedule.last_epoch < length - 1:
                schedule.step()

    found = watched(lambda: train(model, after=advance, optimizer=optimizer))
    assert ("schedule begun anew" in found) == told


def test_tables_of_biases_that_start_at_zero_are_young():
    class Biases(nn.Module):
        def __init__(self):
            super().__init__()
            self.users, self.items = nn.Embedding(50, 1), nn.Embedding(40, 1)
            self.factors = nn.Embedding.from_pretrained(0.1 * torch.randn(50, 8))
            for table in (self.users, self.items):
                nn.init.zeros_(table.weight)

        def forward(self, u, i):
            return self.users(u)[:, 0] + self.items(i)[:, 0] + self.factors(u).sum(1)

    model, effect = Biases(), torch.randn(50)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def run():
        for _ in range(10):
            u, i = torch.randint(0, 50, (256,)), torch.randint(0, 40, (256,))
            optimizer.zero_grad()
            functional.mse_loss(model(u, i), effect[u]).backward()
            optimizer.step()

    assert "learning rate too high" not in watched(run)


def test_a_gradient_that_fades_through_padding_is_no_mask():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.head = nn.Embedding(30, 8, padding_idx=0), nn.Linear(8, 3)
            self.layer = nn.RNN(8, 8, batch_first=True)

        def forward(self, x):
            return self.head(self.layer(self.words(x))[0][:, -1])

    model = Last()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for _ in range(8):
            x = torch.zeros(16, 200, dtype=torch.int64)
            x[:, :4] = torch.randint(1, 30, (16, 4))
            optimizer.zero_grad()
            functional.cross_entropy(model(x), x[:, 0] % 3).backward()
            optimizer.step()

    assert "attention mask reversed" not in watched(run)


@pytest.mark.parametrize("hidden", ["words", "padding", "nothing"])
def test_attention_by_hand_that_hides_the_words(hidden):
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.score = nn.Embedding(30, 16, padding_idx=0), nn.Linear(16, 1)
            self.head = nn.Linear(16, 3)

        def forward(self, x):
            h = self.words(x) + 0.1
            mask = {"words": x != 0, "padding": x == 0, "nothing": x < 0}[hidden]
            scores = self.score(h)[..., 0].masked_fill(mask, -1e9)
            return self.head((scores.softmax(1)[..., None] * h).sum(1))

    model = Pooled()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for _ in range(8):
            x = torch.randint(1, 30, (32, 9))
            x[torch.arange(9) >= torch.randint(2, 10, (32, 1))] = 0
            optimizer.zero_grad()
            functional.cross_entropy(model(x), x[:, 0] % 3).backward()
            optimizer.step()

    assert ("attention mask reversed" in watched(run)) == (hidden == "words")


@pytest.mark.parametrize("kept", ["live", "copied", "another's"])
def test_the_best_weights_must_be_copied_to_be_kept(kept):
    def run():
        model, best = net(), {}

        def keep(model, i, optimizer):
            if i == 10:
                best.update(model.state_dict())

        train(model, after=keep, steps=30)
        if kept == "copied":
            best = copy.deepcopy(best)
        (net() if kept == "another's" else model).load_state_dict(best)

    found = watched(run)
    assert set(found) == ({"weights not loaded"} if kept == "live" else set())
    assert kept != "live" or "test_loop.py:" in found["weights not loaded"].location


def test_an_alias_is_no_target_network():
    def run(target=None):
        model = net()
        target = target or model
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        for i in range(30):
            x, y = batch(i)
            with torch.no_grad():
                target(x)
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            if i % 10 == 9:
                target.load_state_dict(model.state_dict())

    assert "weights not loaded" in watched(run)
    assert "weights not loaded" not in watched(lambda: run(net()))


def test_one_s_own_tensors_before_any_training_are_no_fault():
    def run():
        model = net()
        model.load_state_dict(model.state_dict())
        train(model)

    assert not watched(run)


@pytest.mark.parametrize("cut", [False, True])
def test_a_discriminator_s_pass_is_not_the_generator_s(cut):
    """The optimiser of the generator steps for both; or what it makes is cut off always."""

    def run():
        generator, judge = (
            nn.Linear(4, 20),
            nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 1)),
        )
        optimizer = torch.optim.Adam(generator.parameters(), 1e-3)
        judges = torch.optim.Adam(judge.parameters(), 1e-3) if cut else optimizer
        bce = functional.binary_cross_entropy_with_logits
        for _ in range(100):
            judge.zero_grad()
            fake = generator(torch.randn(32, 4))
            real = judge(torch.randn(32, 20) + 1)
            seen = judge(fake.detach())
            (bce(real, torch.ones(32, 1)) + bce(seen, torch.zeros(32, 1))).backward()
            judges.step()
            generator.zero_grad()
            fake = judge(
                generator(torch.randn(32, 4)).detach() if cut else generator(torch.randn(32, 4))
            )
            bce(fake, torch.ones(32, 1)).backward()
            optimizer.step()

    found = watched(run)
    assert set(found) == ({"no graph"} if cut else {"no step"})


def test_a_trial_of_the_watch_warns_nobody():
    """A loss of chosen entries fits this batch alone, and torch warns of any other."""

    def run():
        model = net()

        def chosen(output, target):
            return functional.mse_loss(output.gather(1, target[:, None]).squeeze(1), torch.ones(32))

        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        for i in range(30):
            x, y = batch(i)
            optimizer.zero_grad()
            chosen(model(x), y).backward()
            optimizer.step()

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        watched(run)
    assert not seen


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_targets_far_from_zero(scale):
    with Watch() as seen:
        regress(lambda x: scale * (3 + 0.3 * x[:, :1]), rate=3e-3)
    found = {v.kind for v in seen.verdicts if v.severity != "note"}
    assert found == ({"targets badly scaled"} if scale > 1 else set())


def test_a_gradient_that_fades_is_told_whatever_the_targets():
    """Targets above 0 alone, as brightness is, are nothing unusual."""

    def run():
        layers = [m for _ in range(9) for m in (nn.Linear(20, 20), nn.Sigmoid())]
        model = nn.Sequential(*layers, nn.Linear(20, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
        for i in range(40):
            x, _ = batch(i)
            optimizer.zero_grad()
            functional.mse_loss(model(x), x[:, :1].sigmoid() + 1).backward()
            optimizer.step()

    assert "vanishing" in watched(run)


@pytest.mark.parametrize("farthest", [True, False])
def test_a_hinge_that_no_pair_violates(farthest):
    def run():
        model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 8))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for i in range(60):
            x, y = batch(i)
            out = functional.normalize(model(x), dim=1)
            apart = torch.cdist(out, out)
            same = y[:, None] == y
            near = torch.where(same, apart, 0).amax(1)
            other = torch.where(same, math.inf, apart)
            hard = (other if farthest else other.neg()).amax(1).abs()
            optimizer.zero_grad()
            functional.relu(near - (hard if farthest else other.amin(1)) + 0.5).mean().backward()
            optimizer.step()

    found = watched(run)
    assert set(found) == ({"wrong loss"} if farthest else set())


@pytest.mark.parametrize("which", ["teacher", "student"])
def test_a_student_that_is_compared_with_nobody(which):
    def run():
        teacher, student = net().requires_grad_(False).eval(), net()
        optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
        for i in range(30):
            x, y = batch(i)
            with torch.no_grad():
                asked = teacher(x)
            given = student(x)
            compared = asked if which == "teacher" else given
            soft = functional.kl_div(
                functional.log_softmax(compared / 4, 1), functional.softmax(asked / 4, 1)
            )
            loss = functional.cross_entropy(given, y) + soft
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    found = watched(run)
    assert set(found) == ({"wrong loss"} if which == "teacher" else set())


def test_an_encoder_that_a_second_stage_trains_further_is_moved_once():
    def run():
        encoder = nn.Sequential(nn.Linear(20, 32), nn.ReLU())
        for stage in range(2):
            model = nn.Sequential(encoder, nn.Linear(32, 5))
            made = torch.optim.AdamW if stage else torch.optim.Adam
            train(model, optimizer=made(model.parameters(), lr=1e-3), steps=30)

    assert not watched(run)


def test_a_loss_of_its_own_weights_is_told():
    """Learnt weights of tasks, in a module that no optimiser holds."""

    class Weighed(nn.Module):
        def __init__(self):
            super().__init__()
            self.logs = nn.Parameter(torch.zeros(2))

        def forward(self, a, b):
            return (torch.stack([a, b]) * (-self.logs).exp() + self.logs).sum()

    def run():
        model, weigh = net(), Weighed()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for i in range(100):
            x, y = batch(i)
            out = model(x)
            optimizer.zero_grad()
            weigh(functional.cross_entropy(out, y), out.square().mean()).backward()
            optimizer.step()

    found = watched(run)
    assert set(found) == {"no step"}
    assert "Weighed" in found["no step"].message


@pytest.mark.parametrize("which", ["heads", "depth", "apart"])
def test_heads_that_are_one_layer(which):
    """One layer on its own output, time after time, is meant."""

    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk = nn.Linear(20, 32)
            if which == "depth":
                self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(32, 32), nn.ReLU())] * 3)
                self.heads = nn.ModuleList([nn.Linear(32, 5)])
            else:
                make = [nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 5))] * 3
                self.heads = nn.ModuleList(make if which == "heads" else map(copy.deepcopy, make))

        def forward(self, x):
            h = self.trunk(x)
            for block in getattr(self, "blocks", ()):
                h = h + block(h)
            h = h.relu()
            return [head(h) for head in self.heads]

    def run():
        model = Several()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for i in range(30):
            x, y = batch(i)
            hidden = model(x)
            loss = sum(functional.cross_entropy(h, y) for h in hidden)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    found = watched(run)
    assert set(found) == ({"layers shared"} if which == "heads" else set())


@pytest.mark.parametrize("which", ["classes", "images", "codes"])
def test_a_sampler_that_draws_the_same_images(which):
    """Weights of classes draw the first images alone; codes come again anyway."""
    x, y = batch(0, 256)
    shown = torch.eye(20)[y] if which == "codes" else x
    weights = 1 / y.bincount().float()
    drawn = torch.utils.data.WeightedRandomSampler(
        weights if which == "classes" else weights[y], num_samples=320
    )
    data = torch.utils.data.TensorDataset(shown, y)

    def run():
        model = net()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(3):
            for a, b in torch.utils.data.DataLoader(data, 64, sampler=drawn):
                optimizer.zero_grad()
                functional.cross_entropy(model(a), b).backward()
                optimizer.step()

    found = watched(run)
    assert ("bad data" in found) == (which == "classes")
    assert which != "classes" or "5 different" in found["bad data"].message


class Reader(nn.Module):
    """Reads texts with a recurrent layer, and looks at one of its outputs."""

    def __init__(self, how: str):
        super().__init__()
        self.words, self.head = nn.Embedding(30, 12), nn.Linear(16, 3)
        self.layer, self.how = nn.LSTM(12, 16, batch_first=True), how

    def forward(self, x, lengths):
        words = self.words(x)
        if self.how == "packed":
            words = nn.utils.rnn.pack_padded_sequence(
                words, lengths, batch_first=True, enforce_sorted=False
            )
            return self.head(self.layer(words)[1][0][-1])
        out = self.layer(words)[0]
        if self.how == "mean":
            return self.head(out.mean(1))
        last = lengths - 1 if self.how == "last word" else -1
        return self.head(out[torch.arange(len(x)), last])


@pytest.mark.parametrize(
    ("how", "first", "told"),
    [
        ("last place", True, True),
        ("last word", True, False),
        ("packed", True, False),
        ("mean", True, False),
        # Padded before the words, as for a layer that reads to the end.
        ("last place", False, False),
    ],
)
def test_a_recurrent_layer_goes_on_over_padding(how, first, told):
    model = Reader(how)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for i in range(8):
            generator = torch.Generator().manual_seed(i)
            lengths = torch.randint(4, 12, (32,), generator=generator)
            x = torch.randint(1, 30, (32, 40), generator=generator)
            labels = x[:, 0] % 3
            x[torch.arange(40) >= lengths[:, None]] = 0
            optimizer.zero_grad()
            functional.cross_entropy(model(x if first else x.flip(1), lengths), labels).backward()
            optimizer.step()

    found = watched(run).get("padding read")
    assert (found is not None) == told
    assert found is None or found.severity == "warning"


@pytest.mark.parametrize("padding", [0, 7])
def test_words_that_end_every_text_are_padding_only_if_they_end_it_alone(padding):
    model = Reader("last place")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for _ in range(8):
            x = torch.randint(1, 30, (32, 40))
            x[:, 15:] = padding
            # A word like any other.
            x[:, 3] = 7
            optimizer.zero_grad()
            functional.cross_entropy(model(x, None), x[:, 0] % 3).backward()
            optimizer.step()

    assert ("padding read" in watched(run)) == (padding == 0)


class Placed(nn.Module):
    """Adds a code of its place to every row, along one dimension of [texts, places, features]."""

    def __init__(self, dim: int, noise: float = 0.0):
        super().__init__()
        self.words, self.head = nn.Embedding(30, 16), nn.Linear(16, 3)
        self.dim, self.noise = dim, noise
        self.register_buffer("codes", torch.randn(64, 16))

    def forward(self, x):
        codes = self.codes[: x.shape[self.dim]]
        words = self.words(x) + (codes if self.dim == 1 else codes[:, None])
        words = words + self.noise * torch.randn_like(words)
        return self.head(words.tanh().mean(1))


@pytest.mark.parametrize(
    ("dim", "noise", "told"), [(0, 0.0, True), (1, 0.0, False), (1, 0.5, False)]
)
def test_an_output_that_depends_on_its_place_in_the_batch(dim, noise, told):
    model = Placed(dim, noise)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for _ in range(8):
            x = torch.randint(1, 30, (32, 12))
            optimizer.zero_grad()
            functional.cross_entropy(model(x), x[:, 0] % 3).backward()
            optimizer.step()

    assert ("images mixed" in watched(run)) == told


def test_a_batch_that_is_compared_with_itself_may_come_in_any_order():
    class Similar(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(20, 16)

        def forward(self, x):
            codes = functional.normalize(self.body(x))
            return codes @ codes.T / 0.1

    model = Similar()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for i in range(8):
            x, _ = batch(i)
            optimizer.zero_grad()
            functional.cross_entropy(model(x), torch.arange(len(x))).backward()
            optimizer.step()

    found = watched(run).get("images mixed")
    assert found is None or "place" not in found.message


@pytest.mark.parametrize("how", ["copied", "lacking", "estimated anew"])
def test_an_average_without_running_statistics(how):
    model = nn.Sequential(nn.Linear(20, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 5))
    average = copy.deepcopy(model).requires_grad_(False).eval()

    def run():
        for epoch in range(4):
            for _ in range(12):
                train(model, steps=1, optimizer=optimizer)
                with torch.no_grad():
                    for a, b in zip(average.parameters(), model.parameters(), strict=True):
                        a.lerp_(b, 0.1)
                    if how == "copied":
                        for a, b in zip(average.buffers(), model.buffers(), strict=True):
                            a.copy_(b)
            x, _ = batch(epoch)
            if how == "estimated anew":
                torch.optim.swa_utils.update_bn([x], average)
            with torch.no_grad():
                average(x)

    model[0].bias.data += 3.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    found = watched(run).get("running statistics")
    assert (found is not None) == (how == "lacking")
    assert found is None or "nobody wrote to" in found.message


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("how", ["reshaped", "permuted", "noise"])
def test_images_that_were_reshaped_where_dimensions_change_places(how, channels):
    generator = torch.Generator().manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(channels, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        nn.Linear(128, 3),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def images():
        # Smooth in space, with channels that differ a little, as photographs are.
        coarse = torch.randn(32, 1, 6, 6, generator=generator)
        colours = torch.randn(32, channels, 3, 3, generator=generator)
        big = functional.interpolate(coarse, 32, mode="bicubic")
        x = big + 0.5 * functional.interpolate(colours, 32, mode="bicubic")
        if how == "noise":
            return torch.randn(x.shape, generator=generator), torch.arange(32) % 3
        apart = x.permute(0, 2, 3, 1).contiguous()
        return (apart.view(x.shape) if how == "reshaped" else x), torch.arange(32) % 3

    def run():
        for _ in range(6):
            x, y = images()
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    found = watched(run).get("bad data")
    assert (found is not None) == (how == "reshaped")


@pytest.mark.parametrize("divided", [False, True])
def test_gradients_of_batches_that_are_added_up(divided):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.5, momentum=0.9)

    def run():
        for i in range(20):
            optimizer.zero_grad()
            for k in range(8):
                x, y = batch(8 * i + k)
                loss = functional.cross_entropy(model(x), y)
                (loss / 8 if divided else loss).backward()
            optimizer.step()

    found = watched(run).get("learning rate too high")
    assert divided or found is not None
    assert found is None or ("8 batches" in found.cause) == (not divided)


@pytest.mark.parametrize(
    ("end", "width", "told"),
    # The end is the padding; it has a label; there is none; all texts are padded to one length.
    [("padding", None, True), ("own", None, False), ("none", None, False), ("padding", 30, False)],
)
def test_texts_whose_end_is_their_padding(end, width, told):
    model = nn.Sequential(nn.Embedding(40, 16), nn.Linear(16, 40))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for i in range(8):
            generator = torch.Generator().manual_seed(i)
            lengths = torch.randint(5, 12, (16,), generator=generator)
            last = {"padding": 0, "own": 1}.get(end)
            rows = [
                [
                    *torch.randint(2, 40, (n,), generator=generator).tolist(),
                    *[last] * (end != "none"),
                ]
                for n in lengths.tolist()
            ]
            size = width or max(map(len, rows))
            x = torch.tensor([row + [0] * (size - len(row)) for row in rows])
            labels = torch.where(x == 0, -100, x)
            optimizer.zero_grad()
            # As language models of transformers do.
            labels = functional.pad(labels, (0, 1), value=-100)[:, 1:]
            functional.cross_entropy(model(x).reshape(-1, 40), labels.reshape(-1)).backward()
            optimizer.step()

    assert ("wrong loss" in watched(run)) == told


@pytest.mark.parametrize("apart", [True, False])
def test_features_that_are_off_are_no_outputs(apart):
    """A model whose parts are called one by one, as by a method of its own, has no output."""
    trunk = nn.Sequential(nn.Linear(20, 24), nn.ReLU())
    with torch.no_grad():
        trunk[0].bias[:8] = -50.0
    head = nn.Linear(24, 5)
    both = nn.Sequential(trunk, head, nn.ReLU())
    with torch.no_grad():
        head.bias[:2] = -50.0
    optimizer = torch.optim.Adam([*trunk.parameters(), *head.parameters()], lr=1e-3)

    def run():
        for i in range(16):
            x, y = batch(i)
            optimizer.zero_grad()
            scores = head(trunk(x)) if apart else both(x)
            # By hand, so that no loss of torch's tells what it is given.
            (scores.logsumexp(1) - scores.gather(1, y[:, None])[:, 0]).mean().backward()
            optimizer.step()

    assert ("constant outputs" in watched(run)) == (not apart)


@pytest.mark.parametrize(("weight", "told"), [(4.0, True), (1 / 60, False)])
def test_a_divergence_that_starts_small_beside_a_mean_over_many_pixels(weight, told):
    """A sum over units, beside a mean over 60 pixels, is heavier than it looks."""
    body, spread, back = nn.Linear(60, 8), nn.Linear(60, 8), nn.Linear(8, 60)
    with torch.no_grad():
        for layer in (body, spread):
            layer.weight.mul_(0.3)
    model = nn.ModuleDict({"body": body, "spread": spread, "back": back})

    class Vae(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = model

        def forward(self, x):
            mean, log = body(x), spread(x)
            return back(mean + torch.randn_like(mean) * (log / 2).exp()), mean, log

    vae = Vae()
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-2)

    def run():
        for i in range(420):
            x = batch(i)[0].repeat(1, 3) / 2
            out, mean, log = vae(x)
            divergence = -0.5 * (1 + log - mean.square() - log.exp()).sum(1).mean()
            optimizer.zero_grad()
            (functional.mse_loss(out, x) + weight * divergence).backward()
            optimizer.step()

    with Watch() as seen:
        run()
    assert ("loss outweighed" in {v.kind for v in seen.verdicts}) == told


class Frozen(nn.Module):
    """Words whose table is frozen, under trained layers, or beside them."""

    def __init__(self, beside: bool) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(50, 32), nn.Linear(32, 5)
        self.more = nn.Embedding(50, 32) if beside else None

    def forward(self, x):
        # The trained branch runs first, as that of an adapter's first layer does.
        more = 0 if self.more is None else self.more(x).mean(1)
        return self.head(self.words(x).mean(1) + more)


@pytest.mark.parametrize("how", ["at random", "trained", "beside"])
def test_words_that_are_frozen_as_they_were_drawn(how):
    model = Frozen(how == "beside")
    if how == "trained":
        with torch.no_grad():
            model.words.weight.mul_(torch.rand(50, 1))
    model.words.requires_grad_(False)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)

    def run():
        for _ in range(12):
            x = torch.randint(50, (32, 6))
            optimizer.zero_grad()
            functional.cross_entropy(model(x), x[:, 0] % 5).backward()
            optimizer.step()

    assert ("weights not loaded" in watched(run)) == (how == "at random")


@pytest.mark.parametrize(("classes", "told"), [(5, False), (3, True)])
def test_validation_labels_of_classes_that_training_lacks(classes, told):
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for i in range(120):
            x, y = batch(i)
            kept = y < classes
            optimizer.zero_grad()
            functional.cross_entropy(model(x[kept]), y[kept]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            for i in range(120, 126):
                x, y = batch(i)
                functional.cross_entropy(model(x), y)

    found = watched(run)
    assert ("train and validation inputs differ" in found) == told
    if told:
        assert "(3, 4)" in found["train and validation inputs differ"].message


@pytest.mark.parametrize("turned", [True, False])
def test_images_that_are_turned_without_their_masks(turned):
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for _ in range(12):
            masks = torch.zeros(16, 1, 24, 24)
            for mask in masks:
                top, left = torch.randint(0, 16, (2,)).tolist()
                mask[0, top : top + 6, left : left + 6] = 1
            images = masks + 0.1 * torch.randn_like(masks)
            half = torch.rand(16) < 0.5
            images[half] = images[half].flip(3)
            if not turned:
                masks[half] = masks[half].flip(3)
            optimizer.zero_grad()
            functional.binary_cross_entropy_with_logits(model(images), masks).backward()
            optimizer.step()

    found = watched(run)
    assert ("bad data" in found) == turned
    assert not turned or "left and right" in found["bad data"].message


@pytest.mark.parametrize(
    ("scale", "severity"), [(0.07, "error"), (1.0, "warning"), (1 / 0.07, None)]
)
@pytest.mark.parametrize("divides", [True, False])
def test_a_temperature_that_multiplies(scale, severity, divides):
    left, right = nn.Linear(20, 16), nn.Linear(20, 16)
    optimizer = torch.optim.Adam([*left.parameters(), *right.parameters()], lr=1e-3)

    def run():
        for i in range(8):
            x, _ = batch(i)
            a, b = (functional.normalize(m(x)) for m in (left, right))
            scores = a @ b.T / (1 / scale) if divides else scale * (a @ b.T)
            optimizer.zero_grad()
            functional.cross_entropy(scores, torch.arange(len(x))).backward()
            optimizer.step()

    found = watched(run).get("activation before the loss")
    assert (found.severity if found is not None else None) == severity


def test_the_step_of_a_solver_may_depend_on_the_whole_batch():
    class Solver(nn.Module):
        def __init__(self):
            super().__init__()
            self.field, self.head = nn.Linear(20, 20), nn.Linear(20, 5)

        def forward(self, x):
            # As long as the largest error of the batch allows.
            step = 0.5 / (1 + 1e-4 * self.field(x).square().mean().sqrt())
            return self.head(x + step * self.field(x).tanh())

    assert "images mixed" not in watched(lambda: train(Solver()))


def test_the_words_of_a_text_are_few():
    model = nn.Sequential(nn.Linear(1000, 16), nn.ReLU(), nn.Linear(16, 5))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def run(scale: float):
        for _ in range(8):
            x, y = torch.zeros(32, 1000), torch.arange(32) % 5
            for row, label in zip(x, y, strict=True):
                row[torch.randint(0, 190, (12,)) * 5 + label] = scale
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    assert "inputs badly scaled" not in watched(lambda: run(1 / 12))
    assert "inputs badly scaled" in watched(lambda: run(1e-3))


def test_the_states_of_an_episode_grow():
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run(grows: float):
        for i in range(12):
            x, y = batch(i)
            optimizer.zero_grad()
            functional.cross_entropy(model(x * 5e-3 * grows**i), y).backward()
            optimizer.step()

    assert "inputs badly scaled" not in watched(lambda: run(2.0))
    assert "inputs badly scaled" in watched(lambda: run(1.0))


def test_linear_layers_side_by_side_need_no_activation():
    class Sides(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(20, 7), nn.Linear(20, 7)

        def forward(self, x):
            return self.a(x) + self.b(x.flip(1))

    assert "no activation" not in watched(lambda: train(Sides()))
    deep = nn.Sequential(nn.Linear(20, 10), nn.Linear(10, 5))
    assert "no activation" in watched(lambda: train(deep))


def test_a_loss_that_is_mostly_noise_answers_little_to_every_layer():
    """Score matching by denoising: the target is the noise over its variance."""
    layers = [nn.Linear(2, 64), nn.Softplus(), nn.Linear(64, 64), nn.Softplus(), nn.Linear(64, 2)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for _ in range(40):
            x, noise = torch.randn(256, 2), torch.randn(256, 2)
            optimizer.zero_grad()
            (model(x + 0.01 * noise) + noise / 0.01).square().sum(1).mean().mul(0.5).backward()
            optimizer.step()

    assert "vanishing" not in watched(run)


class Guesser(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(30, 16), nn.Linear(16, 29)

    def forward(self, x):
        words = self.words(x)
        return self.head((words + words.mean(1, keepdim=True)).tanh())


@pytest.mark.parametrize("shown", [True, False])
def test_masked_words_that_the_model_is_shown(shown):
    model = Guesser()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for _ in range(10):
            ids = torch.randint(29, (16, 12))
            mask = torch.rand(16, 12) < 0.5
            labels = ids.masked_fill(~mask, -1)
            scores = model(ids if shown else ids.masked_fill(mask, 29))
            optimizer.zero_grad()
            functional.cross_entropy(scores.transpose(1, 2), labels, ignore_index=-1).backward()
            optimizer.step()

    assert ("target leakage" in watched(run)) == shown


def test_texts_with_several_labels_that_are_mixed():
    def run(batch_first: bool):
        model = Texts(batch_first)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(10):
            x = torch.randint(20, (16, 10))
            y = torch.stack([(x == k).any(1) for k in range(5)], 1).float()
            optimizer.zero_grad()
            functional.binary_cross_entropy_with_logits(model(x), y).backward()
            optimizer.step()

    assert "images mixed" in watched(lambda: run(False))
    assert "images mixed" not in watched(lambda: run(True))


@pytest.mark.parametrize("training", [True, False])
def test_validation_in_training_mode_of_a_model_that_is_given_a_list(training):
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, parts):
            return self.net(torch.cat(parts, 1))

    model = Joined()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for _ in range(3):
            model.train()
            for i in range(20):
                x, y = batch(i)
                optimizer.zero_grad()
                functional.cross_entropy(model([x[:, :10], x[:, 10:]]), y).backward()
                optimizer.step()
            model.train(training)
            with torch.no_grad():
                for i in range(20, 30):
                    x, _ = batch(i)
                    model([x[:, :10], x[:, 10:]])

    assert ("wrong mode" in watched(run)) == training


@pytest.mark.parametrize(("what", "told"), [("masked words", False), ("whole texts", True)])
def test_a_class_that_ignore_index_leaves_out(what, told):
    """Masked words are left out elsewhere on purpose, and so is no class of whole texts."""
    words, head = nn.Embedding(31, 16), nn.Linear(16, 30 if what == "masked words" else 2)
    model = nn.Sequential(words, nn.Tanh(), head)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for _ in range(10):
            ids = torch.randint(1, 30, (40, 12))
            mask = torch.rand(40, 12) < 0.3
            scores = model(ids.masked_fill(mask, 30))
            labels = ids.masked_fill(~mask, 0).flatten()
            if what == "whole texts":
                scores, labels = scores.mean(1), (ids[:, 0] > 15).long()
            scores = scores.reshape(-1, scores.shape[-1])
            optimizer.zero_grad()
            functional.cross_entropy(scores, labels, ignore_index=0).backward()
            optimizer.step()

    assert ("wrong loss" in watched(run)) == told


@pytest.mark.parametrize(("deep", "severity"), [(False, "warning"), (True, "error")])
def test_large_inputs_of_one_linear_layer_are_a_warning(deep, severity):
    layers = [nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 1)] if deep else [nn.Linear(20, 1)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)

    def run():
        for i in range(12):
            x, _ = batch(i)
            optimizer.zero_grad()
            functional.mse_loss(model(100 * x), 100 * x[:, :1]).backward()
            optimizer.step()

    assert watched(run)["inputs badly scaled"].severity == severity


@pytest.mark.parametrize("left", [True, False])
def test_a_loss_that_is_left_out(left):
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 9))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def run():
        for i in range(24):
            x, y = batch(i)
            scores, place = model(x).split([5, 4], 1)
            loss = functional.cross_entropy(scores, y)
            far = functional.l1_loss(place, x[:, :4])
            optimizer.zero_grad()
            (loss if left else loss + far).backward()
            optimizer.step()

    with Watch() as seen:
        run()
    assert [v.kind for v in seen.verdicts if "l1_loss" in v.message] == (
        ["loss without effect"] if left else []
    )


def test_an_error_that_is_only_measured_is_no_loss():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def run():
        for i in range(24):
            x, y = batch(i)
            out = model(x)
            functional.mse_loss(out.softmax(1), functional.one_hot(y, 5).float())
            optimizer.zero_grad()
            functional.cross_entropy(out, y).backward()
            optimizer.step()

    assert "loss without effect" not in watched(run)


@pytest.mark.parametrize("detach", [True, False])
def test_a_generator_whose_images_are_detached_for_its_own_loss(detach):
    maker = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 20))
    critic = nn.Sequential(nn.Linear(20, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    first, second = (torch.optim.Adam(m.parameters(), lr=1e-3) for m in (maker, critic))
    right = functional.binary_cross_entropy_with_logits

    def run():
        for i in range(40):
            x = batch(i)[0]
            made = maker(torch.randn(len(x), 8))
            true, false = critic(x), critic(made.detach())
            second.zero_grad()
            loss = right(true, torch.ones_like(true)) + right(false, torch.zeros_like(false))
            loss.backward()
            second.step()
            again = critic(made.detach() if detach else made)
            first.zero_grad()
            loss = right(again, torch.ones_like(again)) + 0.1 * functional.l1_loss(made, x)
            loss.backward()
            first.step()

    found = watched(run)
    assert ("loss without effect" in found) == detach
    if detach:
        assert found["loss without effect"].severity == "error"
        assert "test_loop.py" in (found["loss without effect"].location or "")


@pytest.mark.parametrize("steps_an_epoch", [24, 24 * 32])
def test_a_one_cycle_schedule_that_counts_images_for_batches(steps_an_epoch):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    made = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=2 * steps_an_epoch)

    def run():
        train(model, after=lambda *_: made.step(), steps=48, optimizer=optimizer)

    assert ("learning rate vanishes" in watched(run)) == (steps_an_epoch > 24)


def test_a_one_cycle_schedule_that_an_interrupt_ends():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    made = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=5000)

    def interrupt(model, i, optimizer):
        made.step()
        if i == 40:
            raise KeyboardInterrupt

    seen = Watch(every=1000)

    def run():
        with seen:
            train(model, after=interrupt, steps=50, optimizer=optimizer)

    with pytest.raises(KeyboardInterrupt):
        run()
    assert "learning rate vanishes" not in {v.kind for v in seen.verdicts}


class Rewriter(nn.Module):
    """Writes a text backwards: an encoder, and a decoder that may look ahead."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.words, self.places = nn.Embedding(10, 16), nn.Parameter(torch.randn(1, 8, 16))
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.decoder = nn.TransformerDecoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.head = nn.Linear(16, 10)

    def forward(self, source, words):
        read = self.encoder(self.words(source) + self.places[:, : source.shape[1]])
        mask = nn.Transformer.generate_square_subsequent_mask(words.shape[1])
        x = self.words(words) + self.places[:, : words.shape[1]]
        return self.head(self.decoder(x, read, tgt_mask=mask if self.causal else None))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("copies", [True, False])
def test_a_decoder_that_sees_the_words_it_is_to_write(causal, copies):
    model = Rewriter(causal)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for _ in range(8):
            source = torch.randint(1, 10, (32, 7))
            written = source if copies else source.flip(1)
            words = torch.cat([torch.zeros(32, 1, dtype=torch.long), written], 1)
            optimizer.zero_grad()
            scores = model(source, words[:, :-1])
            functional.cross_entropy(scores.flatten(0, 1), words[:, 1:].flatten()).backward()
            optimizer.step()

    assert ("target leakage" in watched(run)) == (not causal)


class Named(nn.Module):
    """Two layers, softmax after them, and a forward that its users call by its name."""

    def __init__(self, softmax: bool = False) -> None:
        super().__init__()
        self.first, self.last, self.softmax = nn.Linear(20, 32), nn.Linear(32, 5), softmax
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        out = self.last(self.first(x).relu())
        return out.softmax(1) if self.softmax else out


class Derived(Named):
    """A forward that calls that of its base."""

    def forward(net, x):  # noqa: N805
        return super().forward(x)


def by_name(model, steps: int = 30):
    """Train a model whose forward is called by its name, evaluate it, and return its weights."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for i in range(steps):
        x, y = batch(i)
        optimizer.zero_grad()
        functional.cross_entropy(model.forward(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        model.forward(batch(99)[0])
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("kind", [Named, Derived])
def test_a_forward_that_is_called_by_its_name(kind):
    own = kind.forward
    torch.manual_seed(1)
    alone = by_name(kind())
    torch.manual_seed(1)
    model = kind()
    with Watch(every=1000) as seen:
        weights = by_name(model)
    assert all(torch.equal(a, b) for a, b in zip(alone, weights, strict=True))
    # Once a step and once for the evaluation, in the model and in its base.
    assert model.calls == 31
    assert [m.model for m in seen.report.models] == [kind.__name__]
    assert not [v for v in seen.verdicts if v.severity == "error"]
    assert kind.forward is own
    said: list[Verdict] = []
    with Watch(every=1000, tell=said.append):
        by_name(kind(softmax=True))
    assert [v.kind for v in said] == ["activation before the loss"]


def test_hooks_of_the_users_run_as_before_where_forward_is_called_by_its_name():
    model, ran = Named(), []
    model.register_forward_hook(lambda *_: ran.append(1))
    with Watch(every=1000):
        by_name(model, steps=6)
    assert not ran


def test_a_forward_by_name_that_calls_itself():
    class Tree(nn.Module):
        def __init__(self):
            super().__init__()
            self.leaf, self.head = nn.Linear(20, 20), nn.Linear(20, 5)

        def forward(self, x, depth=2):
            x = self.leaf(x).tanh()
            return self.forward(x, depth - 1) if depth else self.head(x)

    with Watch(every=1000) as seen:
        by_name(Tree())
    assert [m.model for m in seen.report.models] == ["Tree"]


def test_a_forward_that_the_user_kept_is_left_alone():
    model = Named()
    kept = model.forward
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with Watch(every=1000) as seen:
        for i in range(10):
            x, y = batch(i)
            optimizer.zero_grad()
            functional.cross_entropy(kept(x), y).backward()
            optimizer.step()
    assert model.calls == 10
    assert not [v for v in seen.verdicts if v.severity == "error"]
