"""watch: faults of whole loops with their lines, a training that stays the same bit for bit."""

from __future__ import annotations

import contextlib
import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules import module as hooks
from torch.optim import optimizer as optimizer_hooks
from torch.utils.flop_counter import FlopCounterMode

import unmask
from made_up_clusters import batch
from unmask.errors import UserError
from unmask.flow.watch import Stopped, Watch
from unmask.flow.watched import WatchReport
from unmask.verdict import Verdict


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def net(*after: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 5), *after)


def train(model, steps: int = 12, optimizer=None, step=None) -> None:
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=1e-3)

    def usual(optimizer, loss, i):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for i in range(steps):
        x, y = batch(i)
        (step or usual)(optimizer, functional.cross_entropy(model(x), y), i)


def seen(run, **options) -> dict[str, Verdict]:
    with Watch(**options) as session:
        run()
    return {v.kind: v for v in session.verdicts if v.severity != "note"}


def untouched() -> tuple[object, ...]:
    return (
        functional.cross_entropy,
        torch.autograd.backward,
        torch.nn.utils.clip_grad_norm_,
        torch.optim.Optimizer.zero_grad,
        torch.optim.Optimizer.__init__,
        len(hooks._global_forward_hooks),
        len(hooks._global_forward_pre_hooks),
        len(optimizer_hooks._global_optimizer_pre_hooks),
        torch._C._len_torch_function_stack(),
    )


def test_a_healthy_training_gets_no_word_and_stays_the_same_to_the_bit():
    model = nn.Sequential(
        nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 5)
    )
    twin = copy.deepcopy(model)
    before = untouched()
    torch.manual_seed(3)
    assert seen(lambda: train(model, 30), every=5) == {}
    assert untouched() == before
    torch.manual_seed(3)
    train(twin, 30)
    for (name, a), b in zip(model.state_dict().items(), twin.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_the_verdict_comes_while_it_trains_with_the_line():
    told: list[tuple[int, Verdict]] = []
    count = 0

    def run():
        nonlocal count
        model = net(nn.Softmax(1))
        optimizer = torch.optim.Adam(model.parameters())
        for i in range(20):
            count = i
            x, y = batch(i)
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    with Watch(tell=lambda v: told.append((count, v))) as session:
        run()
    step, verdict = told[0]
    assert step == 0
    assert verdict.kind == "activation before the loss"
    assert verdict.location.endswith(f"test_watch.py:{run.__code__.co_firstlineno + 8}")
    assert [v.kind for v in session.verdicts] == [verdict.kind]


def not_zeroed(optimizer, loss, i):
    loss.backward()
    optimizer.step()


def accumulated(optimizer, loss, i):
    (loss / 4).backward()
    if i % 4 == 3:
        optimizer.step()
        optimizer.zero_grad()


def zeroed_late(optimizer, loss, i):
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()


def stepped_early(optimizer, loss, i):
    optimizer.zero_grad()
    optimizer.step()
    loss.backward()


def never_stepped(optimizer, loss, i):
    optimizer.zero_grad()
    loss.backward()


@pytest.mark.parametrize(
    ("step", "kind", "words"),
    [
        (not_zeroed, "gradients not zeroed", "adds its gradient"),
        (zeroed_late, "no step", "zeroed after backward"),
        (stepped_early, "no step", "comes before backward"),
        (never_stepped, "no step", "no optimizer.step"),
        (accumulated, None, ""),
    ],
)
def test_the_order_of_a_step(step, kind, words):
    found = seen(lambda: train(net(), 24, step=step))
    if kind is None:
        assert found == {}
        return
    assert found[kind].severity == "error"
    assert words in found[kind].message
    assert "test_watch.py:" in found[kind].location


def test_an_optimiser_of_another_model_and_a_replaced_head():
    other = torch.optim.SGD(net().parameters(), lr=0.1)
    assert "no step" in seen(lambda: train(net(), optimizer=other))

    def replaced():
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model[2] = nn.Linear(32, 5)
        train(model, optimizer=optimizer)

    found = seen(replaced)["parameters in no optimiser"]
    assert (found.severity, found.subject) == ("error", "2")


@pytest.mark.parametrize("late", [True, False])
def test_a_head_replaced_after_a_training_is_watched_anew(late):
    model = net()

    def run():
        train(model, steps=30)
        before = torch.optim.Adam(model[2].parameters(), lr=1e-3)
        model[0].requires_grad_(False)
        model[2] = nn.Linear(32, 5)
        train(model, optimizer=before if late else torch.optim.Adam(model[2].parameters(), 1e-3))

    told: list[Verdict] = []
    with Watch(tell=told.append) as session:
        run()
    assert [v.kind for v in told] == (["no step"] if late else [])
    assert "holds other weights" in told[0].message if late else not session.verdicts
    assert [len(w.history) > 3 for w in session.report.models] == [True, not late]
    assert [w.steps for w in session.report.models] == ([31, 0] if late else [30, 11])


def test_a_training_that_was_replaced_leaves_no_hooks():
    before = untouched()
    model = net()
    with Watch() as session:
        train(model, steps=30)
        model[2] = nn.Linear(32, 5)
        torch.optim.Adam(model.parameters(), lr=1e-3).step()
    assert not session.verdicts
    assert untouched() == before


@pytest.mark.parametrize("stop_on", ["error", None])
def test_weights_that_are_not_loaded_can_stop_a_training(stop_on):
    stored = {f"backbone.{name}": value for name, value in net().state_dict().items()}
    stops = pytest.raises(Stopped) if stop_on else contextlib.nullcontext()
    with Watch(stop_on=stop_on) as session, stops:
        net().load_state_dict(stored, strict=False)
    assert [v.kind for v in session.verdicts] == ["weights not loaded"]


@pytest.mark.parametrize("interrupted", [True, False])
def test_a_backward_pass_that_is_interrupted_cuts_no_graph(interrupted):
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.Linear(32, 5))

    def stop(gradient):
        if interrupted:
            raise KeyboardInterrupt

    with Watch() as session:
        x, y = batch(0)
        hidden = model[2](model[1](model[0](x)))
        loss = functional.cross_entropy(model(x), y) + 0 * hidden.sum()
        hidden.register_hook(stop)
        with contextlib.suppress(KeyboardInterrupt):
            loss.backward()
    assert not session.verdicts
    assert len(session.report.models[0].history) == (not interrupted)


def test_two_optimisers_that_take_turns_lack_nothing():
    def run():
        model = net()
        both = [torch.optim.SGD(part.parameters(), lr=0.1) for part in (model[0], model[2])]

        def turns(_, loss, i):
            both[i % 2].zero_grad()
            loss.backward()
            both[i % 2].step()

        train(model, optimizer=both[0], step=turns)

    assert "parameters in no optimiser" not in seen(run)


def test_a_schedule_of_every_batch():
    def run():
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.1)

        def step(optimizer, loss, i):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

        train(model, 40, optimizer, step)

    found = seen(run)["learning rate vanishes"]
    assert "every batch" in found.cause
    assert "test_watch.py:" in found.location

    def cosine():
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)

        def step(optimizer, loss, i):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

        train(model, 40, optimizer, step)

    assert seen(cosine) == {}


@pytest.mark.parametrize(
    ("mode", "accuracy", "severity"),
    [
        ("max", False, "error"),
        ("min", True, "warning"),
        ("min", False, None),
        ("max", True, None),
    ],
)
def test_a_schedule_that_watches_a_figure(mode, accuracy, severity):
    def run():
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
        schedule = plateau(optimizer, mode, patience=1, factor=5e-4)
        losses = []

        def step(optimizer, loss, i):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if i % 8 == 7:
                mean = sum(losses[-8:]) / 8
                schedule.step(math.exp(-mean) if accuracy else mean)

        train(model, 80, optimizer, step)

    found = seen(run)
    if severity is None:
        assert "schedule reversed" not in found
        return
    verdict = found["schedule reversed"]
    assert verdict.severity == severity
    assert ("max" in verdict.fix) == accuracy
    assert "learning rate vanishes" not in found
    assert "test_watch.py:" in verdict.location


def test_modes():
    def normed():
        return nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 5))

    assert seen(lambda: train(normed().eval()))["wrong mode"].severity == "error"

    def validating(mode):
        def run():
            model = normed()
            optimizer = torch.optim.Adam(model.parameters())
            for epoch in range(3):
                model.train()
                train(model, 6, optimizer)
                if mode:
                    model.eval()
                with torch.no_grad():
                    for i in range(4):
                        model(batch(100 + epoch + i)[0])

        return run

    assert "training mode" in seen(validating(False))["wrong mode"].message
    assert seen(validating(True)) == {}
    assert "dropout too strong" in seen(lambda: train(net(nn.Dropout(0.95))))


def test_nan_names_its_operation_and_line():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(20, 5)

        def forward(self, x):
            return (self.layer(x) * 0).log()

    found = seen(lambda: train(Root()))["not a number"]
    assert found.message.startswith("log makes infinity")
    assert "test_watch.py:" in found.location


@pytest.mark.parametrize("own", [False, True])
def test_a_step_before_the_backward_pass_is_told_from_an_operation_in_place(own):
    def run():
        model = nn.Sequential(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 5))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for i in range(2):
            x, y = batch(i)
            output = model(x)
            loss = functional.cross_entropy(output, y)
            if own:
                hidden = model[:2](x)
                loss = loss + hidden.sum()
                hidden += 1
            loss.backward(retain_graph=True)
            optimizer.step()
            (2 * loss).backward()

    session = Watch()
    with pytest.raises(RuntimeError, match="inplace"), session:
        run()
    (verdict,) = (v for v in session.verdicts if v.kind == "crashed")
    assert ("optimizer.step()" in verdict.fix) != own


def test_a_crash_is_explained_and_comes_through():
    def run():
        model = net()
        functional.cross_entropy(model(batch(0)[0]), batch(0)[1] + 3).backward()

    session = Watch()
    with pytest.raises(IndexError), session:
        run()
    (verdict,) = session.report.at_least("error")
    assert verdict.kind == "crashed"
    assert "number of outputs" in verdict.fix
    assert verdict.location.endswith(f"test_watch.py:{run.__code__.co_firstlineno + 2}")


def test_a_transform_for_colours_is_told_from_other_shapes():
    def run():
        image = torch.zeros(1, 28, 28)
        image.sub_(torch.zeros(3, 1, 1))

    session = Watch()
    with pytest.raises(RuntimeError), session:
        run()
    (verdict,) = session.verdicts
    assert "Normalize((0.5,), (0.5,))" in verdict.fix


def test_it_can_stop_a_training():
    session = Watch(stop_on="error")
    with pytest.raises(Stopped), session:
        train(net(nn.Softmax(1)))
    assert session.report.models[0].steps <= 1
    with pytest.raises(UserError, match="unknown severity"):
        Watch(stop_on="fatal")


def test_half_precision_and_a_scaler():
    def scaled():
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        for i in range(12):
            x, y = batch(i)
            with torch.autocast("cpu", torch.bfloat16):
                loss = functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()

    assert seen(scaled) == {}


def test_a_report_is_plain_values_and_public():
    with unmask.watch(tell=lambda v: None) as session:
        train(net())
    report = session.report
    assert isinstance(report, WatchReport)
    (model,) = report.models
    assert (model.model, model.steps) == ("Sequential", 12)
    losses = [s.loss for s in model.history]
    assert all(loss is not None and math.isfinite(loss) for loss in losses)
    assert report.as_dict()["models"][0]["history"][0]["step"] == 0


def test_a_teacher_asked_about_the_students_batches_is_not_validated():
    teacher, student = net(), net()

    def run():
        train(teacher, 40)
        teacher.eval()
        optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
        for i in range(40):
            x, y = batch(i)
            with torch.no_grad():
                soft = teacher(x).softmax(1)
            optimizer.zero_grad()
            (
                functional.cross_entropy(student(x), y) + functional.cross_entropy(student(x), soft)
            ).backward()
            optimizer.step()

    assert "validation images seen in training" not in seen(run)

    def memory():
        train(teacher, 40)
        teacher.eval()
        with torch.no_grad():
            for i in range(40):
                teacher(batch(i)[0])

    assert "validation images seen in training" in seen(memory)


def test_a_difference_of_means_near_zero_is_no_explosion():
    critic = nn.Sequential(nn.Linear(196, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
    optimizer = torch.optim.RMSprop(critic.parameters(), lr=5e-5)

    def run():
        for _ in range(12):
            optimizer.zero_grad()
            (critic(torch.rand(32, 196)).mean() - critic(1 + torch.rand(32, 196)).mean()).backward()
            optimizer.step()

    assert not seen(run)


def test_an_autoencoder_of_sigmoids_that_has_just_begun_is_not_constant():
    model = nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 20), nn.Sigmoid())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run():
        for i in range(12):
            x = batch(i)[0].sigmoid()
            optimizer.zero_grad()
            functional.binary_cross_entropy(model(x), x).backward()
            optimizer.step()

    assert not seen(run)


def test_models_inside_vmap_are_left_alone_and_nothing_is_raised():
    nets = [nn.Sequential(nn.Linear(20, 8), nn.Tanh(), nn.Linear(8, 5)) for _ in range(3)]
    stacked, buffers = torch.func.stack_module_state(nets)
    weights = {k: v.detach() for k, v in stacked.items()}

    def one(w, b, x, y):
        return functional.cross_entropy(torch.func.functional_call(nets[0], (w, b), (x,)), y)

    def run():
        for i in range(12):
            slopes = torch.func.vmap(torch.func.grad(one), (0, 0, None, None))
            for name, slope in slopes(weights, buffers, *batch(i)).items():
                weights[name] -= 0.1 * slope

    with Watch() as session:
        run()
    assert not session.verdicts


def test_a_model_that_is_traced_or_counted_is_not_measured_meanwhile():
    """A summary writer traces the model before it trains; what is computed then is recorded."""
    model = net()
    x = batch(0)[0]
    plain = torch.jit.trace(net(), x).code

    def run():
        with Watch() as session:
            traced = torch.jit.trace(model, x)
            with FlopCounterMode(display=False) as counted:
                model(x).sum().backward()
            model.zero_grad()
            train(model)
            again = torch.jit.trace(model, x)
        return session, traced.code, again.code, counted.get_total_flops()

    session, *codes, flops = run()
    assert codes == [plain, plain]
    # Two products of 20 x 32 and 32 x 5, once forward; back for weights and for hidden values.
    assert flops == 2 * len(x) * (2 * 20 * 32 + 3 * 32 * 5)
    assert [m.problem for m in session.report.models] == [None]
    assert session.report.models[0].history


def test_features_of_another_network_may_change_between_training_and_validation():
    trunk, head = nn.Linear(20, 16), nn.Linear(16, 5)
    optimizer = torch.optim.Adam([*trunk.parameters(), *head.parameters()], lr=0.05)

    def run():
        for i in range(60):
            x, y = batch(i)
            optimizer.zero_grad()
            functional.cross_entropy(head(trunk(x).relu()), y).backward()
            optimizer.step()
            if i % 12 == 11:
                with torch.no_grad():
                    head.eval()
                    head(3 * trunk(x).relu())
                    head.train()

    assert "train and validation inputs differ" not in seen(run)


def test_a_table_of_words_of_which_a_batch_moves_few_rows_is_not_slow():
    bag, head = nn.EmbeddingBag(2000, 8, sparse=True), nn.Linear(8, 3, bias=False)
    nn.init.uniform_(bag.weight, -1 / 8, 1 / 8)
    nn.init.zeros_(head.weight)
    optimizer = torch.optim.SGD([*bag.parameters(), *head.parameters()], lr=1.0)

    def run():
        for _ in range(12):
            y = torch.randint(3, (32,))
            words = torch.randint(600, (32, 5)) + 600 * y[:, None]
            optimizer.zero_grad()
            functional.cross_entropy(head(bag(words)), y).backward()
            optimizer.step()

    assert not seen(run)


def test_features_of_a_frozen_network_are_no_constant_outputs():
    features = nn.Sequential(nn.Linear(20, 12), nn.ReLU())
    with torch.no_grad():
        features[0].bias[:4] = -100
    head = nn.Linear(12, 5)
    optimizer = torch.optim.Adam([*features.parameters(), *head.parameters()], lr=1e-3)

    def run():
        for i in range(4):
            x, y = batch(i)
            optimizer.zero_grad()
            functional.cross_entropy(head(features(x)), y).backward()
            optimizer.step()
        features.requires_grad_(False)
        image = batch(0)[0].requires_grad_()
        change = torch.optim.Adam([image], lr=0.01)
        wanted = features(batch(1)[0])
        for _ in range(120):
            change.zero_grad()
            functional.mse_loss(features(image), wanted).backward()
            change.step()

    assert "constant outputs" not in seen(run, every=2)


@pytest.mark.parametrize(
    ("momentum", "severity"), [(0.0, "error"), (1e-4, "warning"), (0.1, None), (0.95, "warning")]
)
def test_running_statistics_that_never_arrive_or_never_stay(momentum, severity):
    network = nn.Sequential(
        nn.Linear(20, 32), nn.BatchNorm1d(32, momentum=momentum), nn.ReLU(), nn.Linear(32, 5)
    )
    found = seen(lambda: train(network)).get("running statistics")
    assert (found.severity if found else None) == severity


def test_a_silent_branch_at_the_input_is_no_vanishing_gradient():
    class Branched(nn.Module):
        def __init__(self):
            super().__init__()
            self.side, self.main = nn.Linear(20, 32), nn.Linear(20, 32)
            self.out = nn.Linear(32, 5)

        def forward(self, x):
            # Neither layer reads the very tensor that the other does.
            return self.out((1e-5 * self.side(x * 1.0) + self.main(x * 1.0)).relu())

    assert not seen(lambda: train(Branched(), steps=130))


def test_a_root_of_zero_in_a_loss_of_the_users_own_at_a_step_that_is_not_probed():
    network = net()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)

    def run():
        for i in range(30):
            a, b = batch(i)[0], batch(i + 1)[0]
            if i == 14:
                b[0] = a[0]
            optimizer.zero_grad()
            (network(a) - network(b)).square().sum(1).sqrt().mean().backward()
            optimizer.step()

    verdict = seen(run)["not a number"]
    assert "sqrt" in verdict.message
    assert verdict.step == 14


def test_a_raw_column_beside_embeddings():
    class Tabular(nn.Module):
        def __init__(self):
            super().__init__()
            self.region, self.out = nn.Embedding(5, 4), nn.Linear(32, 5)
            self.first = nn.Linear(24, 32)

        def forward(self, numbers, region):
            return self.out(self.first(torch.cat([numbers, self.region(region)], 1)).relu())

    def run(size):
        network = Tabular()
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        for i in range(12):
            x, y = batch(i)
            x = torch.cat([x[:, :-1], size * x[:, -1:].abs()], 1)
            optimizer.zero_grad()
            functional.cross_entropy(network(x, torch.randint(5, (len(x),))), y).backward()
            optimizer.step()

    assert "inputs badly scaled" in seen(lambda: run(1e6))
    assert not seen(lambda: run(1.0))
