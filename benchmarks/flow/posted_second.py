"""The second set of posted faults: written when the rules were final, and measured once.

Like the first set (posted.py): a small training of our own for each post, with its patch as a twin.
All were written before any was run.

    python benchmarks/flow/posted_second.py [--only NAME ...]
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator

import torch
from posted import CASES, GRAPH, HEAD, X, Y, batches, case, cnn, fit, measure, mlp, one_hot
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

FIRST = len(CASES)
GITHUB = "https://github.com"
DIFFER, SEEN = "train and validation inputs differ", "validation images seen in training"


def validating(model: nn.Module, validation: Iterator[Tensor], epochs: int = 3) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    held = list(validation)
    for _ in range(epochs):
        model.train()
        rows = torch.arange(640).view(20, 32)
        for part in rows:
            optimizer.zero_grad()
            F.cross_entropy(model(X[part]), Y[part]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            for x in held:
                model(x)


@case(f"{GITHUB}/JeasunLok/ResNet-pytorch/issues/1", DIFFER)
def validation_is_not_normalised(fixed: bool) -> None:
    held = (X[i : i + 50] for i in range(3000, 3300, 50))
    validating(cnn(), (x if fixed else x * 0.28 + 0.13 for x in held))


@case(f"{GITHUB}/nttcslab/byol-a/issues/5", DIFFER)
def validation_features_are_not_scaled(fixed: bool) -> None:
    held = (X[i : i + 64] for i in range(2000, 2320, 64))
    validating(mlp(width=64), (x if fixed else 12 * x + 4 for x in held))


@case(f"{GITHUB}/MakazhanAlpamys/Soup/issues/680", SEEN)
def validation_drawn_from_the_training_images(fixed: bool) -> None:
    start = 1500 if fixed else 100
    validating(cnn(), (X[i : i + 40] for i in range(start, start + 400, 40)))


class Sequence(nn.Module):
    """A recurrent layer over the rows of a digit."""

    def __init__(self, layer: nn.Module, width: int, over_batch: bool = False) -> None:
        super().__init__()
        self.layer, self.head, self.over_batch = layer, nn.Linear(width, 10), over_batch

    def forward(self, x: Tensor) -> Tensor:
        rows = x[:, 0]
        if self.over_batch:
            # The shape of a transposed batch, and not its order.
            rows = rows.reshape(rows.shape[1], rows.shape[0], rows.shape[2]).transpose(0, 1)
        return self.head(self.layer(rows)[0][:, -1])


@case(f"{GITHUB}/pytorch/pytorch/issues/1538", "images mixed")
def recurrent_layer_without_batch_first(fixed: bool) -> None:
    fit(Sequence(nn.LSTM(14, 40, 2, batch_first=fixed), 40))


@case(f"{GITHUB}/AndersonJo/dqn-pytorch/issues/1", "images mixed")
def gru_without_batch_first(fixed: bool) -> None:
    model = Sequence(nn.GRU(14, 24, batch_first=fixed), 24)
    fit(model, optimizer=torch.optim.RMSprop(model.parameters(), 1e-3))


@case(f"{GITHUB}/HHTseng/video-classification/issues/42", "images mixed")
def reshaped_instead_of_transposed(fixed: bool) -> None:
    fit(Sequence(nn.LSTM(14, 32, batch_first=True), 32, over_batch=not fixed))


@case(f"{GITHUB}/infostreams/neural-network/issues/8", "weights drawn anew")
def weights_reset_each_epoch(fixed: bool) -> None:
    model = mlp(width=32)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for epoch in range(4):
        if not fixed or epoch == 0:
            for layer in model:
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight)
                    nn.init.zeros_(layer.bias)
        fit(model, optimizer=optimizer, data=batches(15))


@case(f"{GITHUB}/google-deepmind/learning-to-learn/issues/18", "weights drawn anew")
def first_weights_restored_each_epoch(fixed: bool) -> None:
    model = cnn()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    start = copy.deepcopy(model.state_dict())
    for _ in range(4):
        if not fixed:
            model.load_state_dict(start)
        fit(model, optimizer=optimizer, data=batches(15))


def height(y: Tensor) -> Tensor:
    return y.float() / 9 + 0.003 * torch.arange(len(y))


@case(f"{GITHUB}/benedekrozemberczki/pytorch_geometric_temporal/pull/233", "shapes broadcast")
def squared_difference_of_column_and_row(fixed: bool) -> None:
    def loss(o: Tensor, y: Tensor) -> Tensor:
        return torch.mean(((o.squeeze() if fixed else o) - height(y)) ** 2)

    fit(mlp(outputs=1), loss)


@case(f"{GITHUB}/manzilzaheer/DeepSets/pull/1", "shapes broadcast")
def absolute_difference_of_row_and_column(fixed: bool) -> None:
    def loss(o: Tensor, y: Tensor) -> Tensor:
        return (height(y) - (o[:, 0] if fixed else o)).abs().mean()

    fit(mlp(outputs=1, width=64), loss)


@case(f"{GITHUB}/jsboige/CoursIA/pull/926", "shapes broadcast")
def squared_error_module_of_column_and_row(fixed: bool) -> None:
    criterion = nn.MSELoss()
    model = Sequence(nn.GRU(14, 24, batch_first=True), 24)
    model.head = nn.Linear(24, 1)
    fit(model, lambda o, y: criterion(o, height(y).view_as(o) if fixed else height(y)))


class Attention(nn.Module):
    """Layers of attention over the rows of a digit, normalised after each part."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(48, 4, 96, 0.0, batch_first=True)
        self.embed, self.head = nn.Linear(14, 48), nn.Linear(48, 10)
        self.body = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.embed(x[:, 0])).mean(1))


HASTE = ("warm-up missing", "learning rate too high", "diverged")


@case(f"{GITHUB}/OpenNMT/OpenNMT-py/issues/869", *HASTE)
def rate_of_two_without_its_schedule(fixed: bool) -> None:
    model = Attention(3)
    optimizer = torch.optim.Adam(model.parameters(), 2.0, betas=(0.9, 0.998))
    scale = 48**-0.5
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        (lambda i: scale * min((i + 1) ** -0.5, (i + 1) * 4000**-1.5)) if fixed else lambda i: 1.0,
    )
    for x, y in batches(70):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        schedule.step()


@case(f"{GITHUB}/LiyuanLucasLiu/Transformer-Clinic/issues/16", *HASTE)
def deep_attention_without_warm_up(fixed: bool) -> None:
    model = Attention(8)
    optimizer = torch.optim.Adam(model.parameters(), 6e-3)
    for i, (x, y) in enumerate(batches(80)):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (i + 1) / 60) if fixed else 6e-3
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


@case(f"{GITHUB}/twtygqyy/pytorch-vdsr/issues/2", "gradients clipped away")
def clipped_at_a_ten_thousandth(fixed: bool) -> None:
    model = cnn()
    optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9)
    for x, y in batches():
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0 if fixed else 1e-4)
        optimizer.step()


@case(f"{GITHUB}/microsoft/CNTK/issues/905", "batch too small")
def batch_normalisation_of_two_images(fixed: bool) -> None:
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(196, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 10)
    )
    fit(model, data=batches(size=32 if fixed else 2))


@case(f"{GITHUB}/BVLC/caffe/issues/1396", "weight decay too large")
def weight_decay_of_a_half(fixed: bool) -> None:
    model = mlp()
    fit(
        model,
        optimizer=torch.optim.SGD(model.parameters(), 0.1, weight_decay=5e-4 if fixed else 0.5),
    )


def by_class(few: int) -> Iterator[tuple[Tensor, Tensor]]:
    order = Y.argsort()
    for i in range(40):
        start = (i * few) % len(order)
        yield X[order[start : start + 32]], Y[order[start : start + 32]]


@case(
    "https://dailydoseofds.beehiiv.com/p/why-is-it-important-to-shuffle-your",
    "batches sorted by class",
)
def data_ordered_by_label(fixed: bool) -> None:
    fit(mlp(width=64), data=batches() if fixed else by_class(100))


@case("https://weekly-geekly.imtqy.com/articles/347510/index.html", "batches sorted by class")
def all_zeros_then_all_ones(fixed: bool) -> None:
    model = cnn()
    optimizer = torch.optim.SGD(model.parameters(), 0.02)
    fit(model, optimizer=optimizer, data=batches() if fixed else by_class(130))


@case(f"{GITHUB}/MishaLaskin/curl/issues/28", "parameters in two optimisers")
def encoder_moved_by_two_optimisers(fixed: bool) -> None:
    encoder, head = mlp(outputs=24), nn.Linear(24, 10)
    first = torch.optim.Adam(encoder.parameters(), 1e-3)
    rest = [*head.parameters()] if fixed else [*encoder.parameters(), *head.parameters()]
    second = torch.optim.Adam(rest, 1e-3)
    for x, y in batches():
        first.zero_grad()
        second.zero_grad()
        F.cross_entropy(head(encoder(x)), y).backward()
        first.step()
        second.step()


@case(f"{GITHUB}/Lu-Feng/SuperVLAD/issues/1", "parameters in two optimisers")
def last_block_in_two_optimisers(fixed: bool) -> None:
    model = cnn()
    held = [p for n, p in model.named_parameters() if not fixed or not n.startswith("5.")]
    whole = torch.optim.Adam(held, 1e-3)
    last = torch.optim.Adam(model[5].parameters(), 1e-2 if not fixed else 1e-3)
    for x, y in batches():
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        whole.step()
        last.step()


@case(f"{GITHUB}/zdebruine/MMVAE/issues/39", "parameters in no optimiser", "no step")
def decoder_left_out_of_the_optimiser(fixed: bool) -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(196, 24), nn.ReLU())
            self.decoder = nn.Sequential(nn.Linear(24, 64), nn.ReLU(), nn.Linear(64, 196))

        def forward(self, x: Tensor) -> Tensor:
            return self.decoder(self.encoder(x))

    model = Pair()
    optimizer = torch.optim.Adam((model if fixed else model.encoder).parameters(), 1e-3)
    for x, _ in batches():
        optimizer.zero_grad()
        F.mse_loss(model(x), x.flatten(1)).backward()
        optimizer.step()


@case(
    f"{GITHUB}/lucidrains/deep-cross-attention/issues/2",
    *("dead units", "symmetric initialisation", "vanishing", "constant outputs"),
)
def zero_weights_before_relu(fixed: bool) -> None:
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(196, 48), nn.ReLU(), nn.Linear(48, 32, bias=False), nn.ReLU(),
        nn.Linear(32, 10),
    )  # fmt: skip
    if not fixed:
        nn.init.zeros_(model[3].weight)
    fit(model)


@case(f"{GITHUB}/facebookresearch/dlrm/pull/358", "dead units")
def bias_far_below_zero(fixed: bool) -> None:
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(196, 64), nn.ReLU(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10)
    )
    nn.init.constant_(model[3].bias, 0.0 if fixed else -20.0)
    fit(model)


@case(f"{GITHUB}/jvargasmu/population_estimation/issues/68", HEAD, "constant outputs", "dead units")
def rectified_output_of_zeros(fixed: bool) -> None:
    head = nn.Linear(48, 10)
    model = nn.Sequential(nn.Flatten(), nn.Linear(196, 48), nn.ReLU(), head)
    if not fixed:
        nn.init.constant_(head.bias, -5.0)
        model.append(nn.ReLU())
    fit(model, lambda o, y: F.mse_loss(o, one_hot(y)))


@case(f"{GITHUB}/Ugenteraan/Deep_Hierarchical_Classification/issues/6", GRAPH, "no graph")
def loss_of_predicted_classes(fixed: bool) -> None:
    def loss(o: Tensor, y: Tensor) -> Tensor:
        if fixed:
            return F.cross_entropy(o, y)
        wrong = (o.argmax(1) != y).float()
        return wrong.mean().requires_grad_()

    fit(mlp(), loss)


@case(f"{GITHUB}/LZGMatrix/BOP19_CDPN_2019ICCV/issues/4", "crashed")
def coordinates_by_argmax(fixed: bool) -> None:
    def loss(o: Tensor, y: Tensor) -> Tensor:
        at = (o.softmax(1) * torch.arange(10.0)).sum(1) if fixed else o.argmax(1).float()
        return (at / 9 - y / 9).square().mean()

    fit(mlp(), loss)


@case(f"{GITHUB}/pytorch/pytorch/issues/1339", GRAPH)
def second_part_fed_by_argmax(fixed: bool) -> None:
    class Chained(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = mlp(outputs=16), nn.Linear(16, 10)

        def forward(self, x: Tensor) -> Tensor:
            z = self.first(x)
            code = z.softmax(1) if fixed else F.one_hot(z.argmax(1), 16).float()
            return self.second(code)

    fit(Chained())


@case(f"{GITHUB}/lpiccinelli-eth/UniK3D/issues/16", "loss scale collapses", "not a number")
def scale_below_one(fixed: bool) -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=4096.0)
    for x, y in batches():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        # The distance of two points that are the same.
        apart = (model[1].weight[0] - model[1].weight[0].detach()).square().sum()
        scaler.scale(loss + (apart + (1e-6 if fixed else 0.0)).sqrt()).backward()
        scaler.step(optimizer)
        scaler.update()


@case("https://thecodeforge.io/ml-ai/pytorch-training-loop/", "gradients not zeroed")
def gradients_of_all_batches_added(fixed: bool) -> None:
    model = cnn()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    for x, y in batches():
        if fixed:
            model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


@case(
    "https://runebook.dev/en/docs/pytorch/generated/torch.optim.adam/torch.optim.Adam.step",
    "gradients not zeroed",
)
def adam_on_added_gradients(fixed: bool) -> None:
    model = Sequence(nn.LSTM(14, 32, batch_first=True), 32)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for x, y in batches():
        loss = F.cross_entropy(model(x), y)
        if fixed:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@case(
    "https://theneuralbase.com/pytorch/learn/beginner/forward-pass-loss-backward-step/", "no step"
)
def step_before_backward(fixed: bool) -> None:
    model = cnn()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for x, y in batches():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        if fixed:
            loss.backward()
            optimizer.step()
        else:
            optimizer.step()
            loss.backward()


@case(f"{GITHUB}/rajveermalviya/language-modeling/issues/3", "learning rate too high", "diverged")
def adam_at_a_rate_of_one(fixed: bool) -> None:
    model = mlp()
    fit(model, optimizer=torch.optim.Adam(model.parameters(), 1e-3 if fixed else 1.0))


@case(f"{GITHUB}/keras-team/keras/issues/3687", "vanishing", "images mixed")
def pixels_one_by_one_through_a_plain_layer(fixed: bool) -> None:
    class Pixels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = (
                nn.RNN(14 if fixed else 1, 32, batch_first=True),
                nn.Linear(32, 10),
            )

        def forward(self, x: Tensor) -> Tensor:
            steps = x[:, 0] if fixed else x.flatten(1)[..., None]
            return self.head(self.layer(steps)[0][:, -1])

    fit(Pixels())


@case(
    "http://www.govindc.com/debugging-neural-networks-a-checklist/",
    "labels unrelated to the images",
)
def labels_of_another_order(fixed: bool) -> None:
    order = torch.arange(4000) if fixed else torch.randperm(4000)
    labels = Y[order]

    def data() -> Iterator[tuple[Tensor, Tensor]]:
        for i in range(120):
            rows = (torch.arange(32) + 32 * i) % 4000
            yield X[rows], labels[rows]

    fit(mlp(), data=data())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", help="names of cases")
    arguments = parser.parse_args()
    chosen = CASES[FIRST:]
    if arguments.only:
        chosen = [c for c in chosen if c.name in arguments.only]
    measure(chosen, "second")


if __name__ == "__main__":
    main()
