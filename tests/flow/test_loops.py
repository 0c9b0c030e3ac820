"""watch: faults that only a whole loop shows, and healthy loops that look like them."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from made_up_clusters import CENTRES, batch
from unmask.flow.watch import Watch
from unmask.verdict import Verdict


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def net(*after: nn.Module, outputs: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, outputs), *after)


def cross_entropy(output, targets):
    # Looked up when it is called, as a script does that was started under the watch.
    return functional.cross_entropy(output, targets)


def train(
    model,
    optimizer=None,
    loss=cross_entropy,
    steps: int = 24,
    first: int = 0,
    between=lambda model: None,
    change=lambda x, y: (x, y),
) -> None:
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=1e-3)
    for i in range(first, first + steps):
        x, y = change(*batch(i))
        optimizer.zero_grad()
        loss(model(x), y).backward()
        between(model)
        optimizer.step()


def seen(run) -> dict[str, Verdict]:
    with Watch() as session:
        run()
    assert [m.problem for m in session.report.models] == [None] * len(session.report.models)
    return {v.kind: v for v in session.verdicts if v.severity != "note"}


def sgd(model, rate: float = 0.1, **options):
    return torch.optim.SGD(model.parameters(), lr=rate, **options)


def clip_norm(model):
    nn.utils.clip_grad_norm_(model.parameters(), 1e-6)


def clip_value(model):
    nn.utils.clip_grad_value_(model.parameters(), 1e-8)


def zeros(model):
    model.zero_grad(set_to_none=False)


def half_of(model, **options):
    """Train with a schedule from the tenth step on."""
    optimizer = sgd(model)
    for i in range(40):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 if i < 10 else 0.0
        train(model, optimizer, steps=1, first=i)


def twice(model):
    first, second = sgd(model), sgd(model[2])
    for i in range(8):
        x, y = batch(i)
        first.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        first.step()
        second.step()


def anew(model):
    optimizer = torch.optim.Adam(model.parameters())
    for epoch in range(4):
        for layer in (model[0], model[2]):
            layer.reset_parameters()
        train(model, optimizer, steps=6, first=epoch * 6)


def restored(model):
    optimizer, start = torch.optim.Adam(model.parameters()), copy.deepcopy(model.state_dict())
    for epoch in range(4):
        model.load_state_dict(start)
        train(model, optimizer, steps=6, first=epoch * 6)


def infinities(model):
    optimizer, scaler = sgd(model), torch.amp.GradScaler("cpu", init_scale=65536.0)
    for i in range(20):
        x, y = batch(i)
        optimizer.zero_grad()
        scaler.scale(functional.cross_entropy(model(x), y)).backward()
        model[0].weight.grad[0, 0] = math.inf
        scaler.step(optimizer)
        scaler.update()


def validating(model, change, first=900):
    optimizer = torch.optim.Adam(model.parameters())
    for epoch in range(3):
        train(model.train(), optimizer, steps=10, first=epoch * 10)
        model.eval()
        with torch.no_grad():
            for i in range(3):
                model(change(batch(first + i)[0]))


@pytest.mark.parametrize(
    ("run", "kind", "words"),
    [
        (lambda: train(net(), sgd(net())), "no step", ""),
        (lambda: train(m := net(), sgd(m, 1e-8)), "learning rate too low", ""),
        (lambda: half_of(net()), "learning rate vanishes", ""),
        (lambda: train(m := net(), sgd(m), between=clip_norm), "gradients clipped away", ""),
        (lambda: train(m := net(), sgd(m), between=clip_value), "gradients clipped away", ""),
        (lambda: train(m := net(), sgd(m), between=zeros), "no step", "zeroed after"),
        (lambda: twice(net()), "parameters in two optimisers", "one gradient"),
        (lambda: anew(net()), "weights drawn anew", "replaced"),
        (lambda: restored(net()), "weights drawn anew", "replaced"),
        (lambda: infinities(net()), "loss scale collapses", "GradScaler"),
        (
            lambda: train(m := net(), sgd(m, weight_decay=3.0)),
            "weight decay too large",
            "as much as",
        ),
        (
            lambda: train(net(outputs=1), loss=lambda o, y: (o - y / 3).square().mean()),
            "shapes broadcast",
            "meet targets",
        ),
        (
            lambda: train(net(), loss=lambda o, y: -functional.cross_entropy(o, y)),
            "wrong loss",
            "negative",
        ),
        (lambda: train(net(nn.Dropout(0.5))), "activation before the loss", "dropout"),
        (
            lambda: train(
                m := net(), loss=lambda o, y: functional.cross_entropy(o * 0 + 1.0 * m[2].bias, y)
            ),
            "loss independent of the images",
            "same for every image",
        ),
        (
            lambda: train(net(), change=lambda x, y: (x[:1].expand(32, -1), y)),
            "bad data",
            "all images",
        ),
        (
            lambda: validating(net(), lambda x: 255 * x),
            "train and validation inputs differ",
            "standard deviation",
        ),
        (
            lambda: validating(net(), lambda x: x, first=3),
            "validation images seen in training",
            "memory",
        ),
    ],
)
def test_faults_of_loops(run, kind, words):
    found = seen(run)
    assert list(found) == [kind]
    assert words in found[kind].message
    assert found[kind].fix


class Rows(nn.Module):
    """A recurrent layer over an image's rows, or by mistake over the batch."""

    def __init__(self, kind=nn.LSTM, batch_first: bool = True, rows: int = 4, mean: bool = False):
        super().__init__()
        self.layer = kind(20 // rows if rows < 20 else 1, 16, batch_first=batch_first)
        self.head, self.rows, self.mean = nn.Linear(16, 5), rows, mean

    def forward(self, x):
        x = x.unflatten(1, (4, 5)) if self.rows < 20 else x.repeat(1, self.rows // 20)[..., None]
        out = self.layer(x)[0]
        return self.head(out.mean(1) if self.mean else out[:, -1])


class Language(nn.Module):
    """Attention over all words, or over those before, to predict the next."""

    def __init__(self, causal: bool, convolves: bool) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(20, 32), nn.Embedding(12, 32)
        self.block = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True)
        self.conv = nn.Conv1d(32, 32, 3)
        self.head, self.causal, self.convolves = nn.Linear(32, 20), causal, convolves

    def forward(self, x):
        n = x.shape[1]
        h = self.words(x) + self.places(torch.arange(n))
        if self.convolves:
            pad = (2, 0) if self.causal else (1, 1)
            return self.head(self.conv(functional.pad(h.transpose(1, 2), pad)).relu().mT)
        mask = nn.Transformer.generate_square_subsequent_mask(n) if self.causal else None
        return self.head(self.block(h, src_mask=mask))


@pytest.mark.parametrize("convolves", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("start", [0, 5])
def test_words_that_see_the_next_one(causal, convolves, start):
    model = Language(causal, convolves)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for _ in range(30):
            text = (torch.randint(20, (32, 1)) + 3 * torch.arange(12)) % 20
            optimizer.zero_grad()
            logits = model(text[:, :-1])[:, start:]
            functional.cross_entropy(
                logits.reshape(-1, 20), text[:, start + 1 :].reshape(-1)
            ).backward()
            optimizer.step()

    assert ("target leakage" in seen(run)) != causal


@pytest.mark.parametrize("causal", [False, True])
def test_words_that_are_their_own_targets(causal):
    # One that sees all words, as an autoencoder does, may well be asked to say them again.
    model = Language(causal, convolves=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for _ in range(30):
            text = torch.randint(20, (32, 11))
            optimizer.zero_grad()
            functional.cross_entropy(model(text).mT, text).backward()
            optimizer.step()

    assert ("target leakage" in seen(run)) == causal


def test_words_with_labels_of_their_own_may_see_each_other():
    model = Language(causal=False, convolves=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for _ in range(30):
            text = torch.randint(20, (32, 11))
            optimizer.zero_grad()
            functional.cross_entropy(model(text).mT, (text + text.roll(1, 1)) % 20).backward()
            optimizer.step()

    assert "target leakage" not in seen(run)


class Padded(nn.Module):
    """Read texts of different lengths, with a mask for their padding."""

    def __init__(self, right: bool, batch_first: bool) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 32, padding_idx=0)
        self.block = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=batch_first)
        self.head, self.right, self.batch_first = nn.Linear(32, 3), right, batch_first

    def forward(self, text):
        mask = (text == 0) if self.right else (text != 0)
        read = text if self.batch_first else text.T
        h = self.block(self.words(read), src_key_padding_mask=mask)
        return self.head(h[:, 0] if self.batch_first else h[0])


def padded(n: int, words: int = 12):
    lengths = torch.randint(3, words + 1, (n, 1))
    text = torch.randint(1, 20, (n, words)) * (torch.arange(words) < lengths)
    return text, text[:, 0] % 3


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("right", [False, True])
def test_a_mask_that_hides_the_words(right, batch_first):
    model = Padded(right, batch_first)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for _ in range(12):
            text, y = padded(32)
            optimizer.zero_grad()
            functional.cross_entropy(model(text), y).backward()
            optimizer.step()

    assert ("attention mask reversed" in seen(run)) != right


@pytest.mark.parametrize("right", [False, True])
def test_a_mask_of_transformers_that_hides_the_words(right):
    transformers = pytest.importorskip("transformers")
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(vocab_size=20, hidden_size=32, num_labels=3, **sizes)
    model = transformers.BertForSequenceClassification(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for _ in range(12):
            text, y = padded(32)
            mask = (text != 0) if right else (text == 0)
            optimizer.zero_grad()
            model(input_ids=text, attention_mask=mask.long(), labels=y).loss.backward()
            optimizer.step()

    assert ("attention mask reversed" in seen(run)) != right


class Asked(nn.Module):
    """Attention over the keys of an image, or, by mistake, over the images."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.key, self.value = nn.Embedding(40, 16), nn.Embedding(40, 16)
        self.head, self.dim = nn.Linear(16, 5), dim

    def forward(self, keys, values, question):
        scores = torch.einsum("btc,bc->bt", self.key(keys), self.key(question))
        return self.head(torch.einsum("bt,btc->bc", scores.softmax(self.dim), self.value(values)))


class Stacked(nn.Module):
    """Readings of one time each, put side by side, or cut into other images."""

    def __init__(self, keeps: bool) -> None:
        super().__init__()
        self.conv, self.head, self.keeps = nn.Conv1d(4, 16, 3), nn.Linear(16, 5), keeps

    def forward(self, readings):
        x = torch.stack(readings)
        time, images, features = x.shape
        x = x.permute(1, 2, 0) if self.keeps else x.reshape(images, features, time)
        return self.head(self.conv(x).relu().mean(-1))


class Pairs(nn.Module):
    """Each of one side compared with all of the other, as for a loss within the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 8), nn.Linear(6, 8)

    def forward(self, a, b):
        return self.left(a) @ self.right(b).T


def keyed():
    return [torch.randint(40, (32, 6)), torch.randint(40, (32, 6)), torch.randint(40, (32,))]


def readings():
    return [[torch.randn(32, 4) for _ in range(7)]]


def sides():
    return [torch.randn(32, 6), torch.randn(32, 6)]


@pytest.mark.parametrize(
    ("model", "inputs", "mixed"),
    [
        (lambda: Asked(0), keyed, True),
        (lambda: Asked(1), keyed, False),
        (lambda: Stacked(False), readings, True),
        (lambda: Stacked(True), readings, False),
        (Pairs, sides, False),
    ],
)
def test_images_of_several_inputs_that_are_mixed(model, inputs, mixed):
    model = model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for _ in range(8):
            given = inputs()
            y = torch.arange(32) if isinstance(model, Pairs) else torch.randint(5, (32,))
            optimizer.zero_grad()
            functional.cross_entropy(model(*given), y).backward()
            optimizer.step()

    assert ("images mixed" in seen(run)) == mixed


def test_images_that_are_mixed_and_gradients_that_fade_in_time():
    assert list(seen(lambda: train(Rows(batch_first=False)))) == ["images mixed"]
    found = seen(lambda: train(Rows(nn.RNN, rows=160), steps=6))
    assert list(found) == ["vanishing"]
    assert found["vanishing"].cause == "through time"
    assert seen(lambda: train(Rows(), steps=6)) == {}
    # Its gates open as it learns.
    assert seen(lambda: train(Rows(rows=20), steps=6)) == {}
    assert seen(lambda: train(Rows(nn.RNN, rows=160, mean=True), steps=6)) == {}


def test_images_that_come_class_by_class_between_the_probed_steps():
    turn = itertools.count()

    def by_class(x, y):
        y = torch.full_like(y, next(turn) // 8 % 5)
        return CENTRES[y] + torch.randn(len(y), 20), y

    found = seen(lambda: train(net(), steps=40, change=by_class))
    assert list(found) == ["batches sorted by class"]


def test_labels_that_images_do_not_tell():
    def shuffled():
        train(net(), steps=110, change=lambda x, y: (x, y[torch.randperm(len(y))]))

    assert list(seen(shuffled)) == ["labels unrelated to the images"]


def adversaries():
    maker, judge = net(outputs=20), net(outputs=1)
    optimizers = [torch.optim.Adam(m.parameters(), 2e-4) for m in (maker, judge)]

    def loss(x, real):
        target = torch.full((32, 1), float(real))
        return functional.binary_cross_entropy_with_logits(judge(x), target)

    for i in range(12):
        x = batch(i)[0]
        optimizers[1].zero_grad()
        (loss(x, 1) + loss(maker(torch.randn(32, 20)).detach(), 0)).backward()
        optimizers[1].step()
        optimizers[0].zero_grad()
        loss(maker(torch.randn(32, 20)), 1).backward()
        optimizers[0].step()


def halves():
    body, head = net(outputs=16), nn.Linear(16, 5)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], 1e-3)
    for i in range(12):
        x, y = batch(i)
        optimizer.zero_grad()
        functional.cross_entropy(head(body(x)), y).backward()
        optimizer.step()


def teacher():
    model = nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 5))
    other, optimizer = copy.deepcopy(model), sgd(model)
    for i in range(12):
        x, y = batch(i)
        aim = other(x).softmax(1).detach()
        z = model(x)
        optimizer.zero_grad()
        (functional.cross_entropy(z, y) + functional.mse_loss(z.softmax(1), aim)).backward()
        optimizer.step()


def sharpness():
    model = net()
    optimizer = sgd(model)
    for i in range(12):
        x, y = batch(i)
        functional.cross_entropy(model(x), y).backward()
        with torch.no_grad():
            moves = [0.01 * p.grad for p in model.parameters()]
            for p, move in zip(model.parameters(), moves, strict=True):
                p.add_(move)
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        with torch.no_grad():
            for p, move in zip(model.parameters(), moves, strict=True):
                p.sub_(move)
        optimizer.step()
        optimizer.zero_grad()


def folds():
    model = net()
    for fold in range(4):
        for layer in (model[0], model[2]):
            layer.reset_parameters()
        train(model, steps=6, first=fold * 6)


def line_search():
    model = net()
    optimizer = torch.optim.LBFGS(model.parameters(), 0.5, max_iter=4)
    for i in range(8):
        x, y = batch(i)

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(x), y)
            loss.backward()
            return loss

        optimizer.step(closure)


def queue():
    model = nn.Linear(20, 8)
    optimizer, keys = sgd(model, 0.05), functional.normalize(torch.randn(64, 8))
    for i in range(12):
        q = functional.normalize(model(batch(i)[0]))
        scores = torch.cat([(q * q.detach()).sum(1, keepdim=True), q @ keys.T], 1)
        optimizer.zero_grad()
        functional.cross_entropy(scores, torch.zeros(32, dtype=torch.long)).backward()
        optimizer.step()


def background():
    model = nn.Sequential(nn.Conv1d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv1d(8, 2, 1))
    train(
        model,
        change=lambda x, y: (x[:, None], (x > 3).long()),
    )


def long_warm_up():
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: min(1, (i + 1) / 1000))
    for i in range(24):
        train(model, optimizer, steps=1, first=i)
        schedule.step()


def ranked():
    def loss(o, y):
        apart = o - o.T
        return functional.softplus(-apart[y[:, None] > y[None, :]]).mean()

    train(net(outputs=1), loss=loss)


@pytest.mark.parametrize(
    "run",
    [
        *(adversaries, halves, teacher, sharpness, folds, line_search, queue, background),
        *(long_warm_up, ranked),
        lambda: validating(net(), lambda x: x),
        lambda: validating(net(), lambda x: x + 0.3),
        lambda: train(m := net(), sgd(m, weight_decay=1e-3)),
        lambda: train(m := net(), torch.optim.AdamW(m.parameters(), 1e-3, weight_decay=0.1)),
        lambda: train(net(), loss=lambda o, y: functional.mse_loss(o[:, :1], y[:, None] * 7.3 + 1)),
    ],
)
def test_healthy_loops_get_no_word(run):
    assert seen(run) == {}
