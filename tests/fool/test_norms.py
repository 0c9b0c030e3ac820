import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.errors import UserError
from unmask.fool.norms import NORMS, Norm, Threat, wide

CONVEX = [NORMS[name] for name in ("l1", "l2", "linf")]
norms = st.sampled_from(CONVEX)
seeds = st.integers(0, 10_000)
radii = st.floats(1e-3, 5.0)
scales = st.sampled_from([1e-20, 1e-6, 1.0, 1e6])


def changes(seed: int, n: int = 4, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((n, 2, 3, 3), generator=generator) * scale


def naive_size(norm: Norm, change: torch.Tensor) -> torch.Tensor:
    flat = change.double().flatten(1)
    order = {"l1": 1, "l2": 2, "linf": float("inf")}[norm.name]
    return torch.stack([torch.linalg.vector_norm(row, ord=order) for row in flat])


@given(norms, seeds, radii)
@settings(deadline=None)
def test_projection_lands_in_the_ball_and_stays(norm, seed, radius):
    once = norm.project(changes(seed), radius)
    assert (naive_size(norm, once) <= radius * (1 + 1e-6)).all()
    torch.testing.assert_close(norm.project(once, radius), once)


@given(norms, seeds, radii)
@settings(deadline=None)
def test_no_other_change_of_the_ball_is_nearer_than_the_projection(norm, seed, radius):
    change = changes(seed)
    off = change - norm.project(change, radius)
    # Of a convex set, p is nearest to x if and only if <x - p, q - p> <= 0 for every q in it.
    for _ in range(5):
        other = norm.noise(change, radius, torch.Generator().manual_seed(seed + 1))
        corner = radius * norm.direction(off)
        for q in (other, corner):
            inner = (off * (q - norm.project(change, radius))).double().flatten(1).sum(1)
            assert (inner <= 1e-4 * radius * (1 + naive_size(norm, change))).all()


@given(norms, seeds)
@settings(deadline=None)
def test_what_lies_inside_the_ball_is_projected_onto_itself(norm, seed):
    change = changes(seed)
    assert torch.equal(norm.project(change, 100.0), change)


@given(norms, seeds, scales)
@settings(deadline=None)
def test_direction_has_norm_one_and_grows_by_the_dual_norm(norm, seed, scale):
    gradient = changes(seed, scale=scale)
    direction = norm.direction(gradient)
    torch.testing.assert_close(norm.size(direction), torch.ones(4))
    growth = (direction.double() * gradient.double()).flatten(1).sum(1)
    order = {"l1": float("inf"), "l2": 2, "linf": 1}[norm.name]
    dual = torch.linalg.vector_norm(gradient.double().flatten(1), ord=order, dim=1)
    torch.testing.assert_close(growth, dual, rtol=1e-5, atol=0)
    if scale > 1e-10:
        torch.testing.assert_close(norm.dual(gradient).double(), dual, rtol=1e-5, atol=0)


@pytest.mark.parametrize("norm", NORMS.values(), ids=lambda norm: norm.name)
def test_nothing_grows_along_a_gradient_of_zero(norm):
    assert torch.equal(norm.direction(torch.zeros(2, 1, 3, 3)), torch.zeros(2, 1, 3, 3))


@given(norms, seeds, st.lists(radii, min_size=4, max_size=4))
@settings(deadline=None)
def test_noise_stays_inside_each_pictures_own_ball(norm, seed, radius):
    each = torch.tensor(radius)
    noise = norm.noise(changes(0), each, torch.Generator().manual_seed(seed))
    assert (naive_size(norm, noise) <= each.double() * (1 + 1e-6)).all()


@pytest.mark.parametrize("norm", CONVEX, ids=lambda norm: norm.name)
def test_noise_is_uniform_in_the_ball(norm):
    like = torch.zeros(20_000, 1, 1, 2)
    noise = norm.noise(like, 1.0, torch.Generator().manual_seed(0))
    # Half as large a ball of two dimensions holds a quarter of the changes.
    assert (norm.size(noise) < 0.5).double().mean() == pytest.approx(0.25, abs=0.015)
    assert noise.mean((0, 1, 2)).abs().max() < 0.02


@pytest.mark.parametrize("norm", NORMS.values(), ids=lambda norm: norm.name)
def test_a_descents_step_has_norm_one_and_goes_up(norm):
    gradient = changes(3)
    step = norm.step(gradient)
    torch.testing.assert_close(norm.size(step), torch.ones(4))
    assert ((step * gradient).flatten(1).sum(1) > 0).all()
    assert torch.equal(norm.step(torch.zeros(2, 1, 3, 3)), torch.zeros(2, 1, 3, 3))


@pytest.mark.parametrize("norm", NORMS.values(), ids=lambda norm: norm.name)
def test_no_change_is_better_than_the_shrunk_one(norm):
    change, weight = changes(7), torch.tensor([0.1, 0.3, 1.0, 3.0])

    def value(other):
        return (other - change).square().flatten(1).sum(1) / 2 + weight * norm.size(other)

    shrunk, generator = norm.shrunk(change, weight), torch.Generator().manual_seed(0)
    others = [change, 0 * change, 0.5 * change]
    for scale in (1e-3, 1e-2, 0.1, 1.0):
        noise = torch.randn((50, *change.shape), generator=generator)
        others += list(shrunk + scale * noise)
    for other in others:
        assert (value(shrunk) <= value(other) + 1e-4).all()


@given(seeds, st.integers(0, 18))
@settings(max_examples=30, deadline=None)
def test_in_l0_the_largest_values_are_kept(seed, count):
    norm, change = NORMS["l0"], changes(seed)
    kept = norm.project(change, count + 0.5)
    assert (norm.size(kept) == count).all()
    for before, after in zip(change.flatten(1), kept.flatten(1), strict=True):
        assert sorted(after.abs().tolist()) == sorted(
            [0.0] * (18 - count) + sorted(before.abs().tolist())[18 - count :]
        )
    noise = norm.noise(change, count, torch.Generator().manual_seed(seed))
    assert (norm.size(noise) <= count).all()


@given(norms, seeds, st.lists(radii, min_size=4, max_size=4))
@settings(max_examples=30, deadline=None)
def test_each_picture_has_its_own_radius(norm, seed, radius):
    change = changes(seed)
    together = norm.project(change, torch.tensor(radius))
    for i, own in enumerate(radius):
        torch.testing.assert_close(together[i : i + 1], norm.project(change[i : i + 1], own))


@pytest.mark.parametrize(
    ("text", "name", "eps"),
    [
        ("l2", "l2", None),
        ("linf:0.3", "linf", 0.3),
        (" LINF:8/255 ", "linf", 8 / 255),
        ("l2:1.5e0", "l2", 1.5),
    ],
)
def test_a_threat_is_read(text, name, eps):
    threat = Threat.parse(text)
    assert (threat.norm.name, threat.eps) == (name, eps)


@pytest.mark.parametrize(
    "text",
    ["l3", "l0:0.5", "linf:", "linf:x", "linf:1/0", "linf:0", "l2:-1", "l2:nan", "l2:1e999", ""],
)
def test_another_threat_is_refused(text):
    with pytest.raises(UserError):
        Threat.parse(text)


def test_a_threat_allows_what_is_within_eps():
    threat = Threat.parse("l2:1")
    change = wide(torch.tensor([0.0, 0.999, 1.0, 1.001]), torch.zeros(4, 1, 1, 1))
    assert threat.allows(change).tolist() == [True, True, True, False]
    assert threat.allows(change, slack=0.01).all()
    assert Threat.parse("l2").allows(change * 1e9).all()


def test_a_threat_without_eps_has_no_bound():
    assert Threat.parse("linf:8/255").bound == 8 / 255
    with pytest.raises(UserError, match="how large a change"):
        _ = Threat.parse("linf").bound
