"""What faces wear and hold, drawn on annotated faces, with the class that is then right.

A hand, a beard, a scarf or a veil over a bare face leaves it without a mask; sunglasses, shields,
helmets and hoods change no class; masks are recoloured, printed, drawn on bare faces, or drawn too
low. Everything is drawn in coordinates of the face: x and y run from 0 to 1 across and down its
box, in which the eyes lie at about 0.38 and the mouth at 0.75.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]

# On smaller faces, in pixels, drawings would not be visible.
LEAST_SIDE = 14.0
_AROUND = 0.75


@dataclass(frozen=True, eq=False)
class Window:
    """The surroundings of a face to draw on.

    Args:
        part: float32[h, w, 3], 0 to 255.
        x: float32[h, w], across the face, 0 to 1 on its box.
        y: float32[h, w], down the face, 0 to 1 on its box.
        pixel: the side of a pixel as a fraction of the face's width.
    """

    part: Floats
    x: Floats
    y: Floats
    pixel: float

    def edge(self, distance: Any, soft: float = 1.0) -> Floats:
        """Return float32[h, w], the opacity of where a distance is positive, 0 to 1.

        Args:
            distance: float[h, w], in face widths.
            soft: the width of the transition, in pixels.
        """
        return np.asarray(np.clip(0.5 + distance / (self.pixel * soft), 0, 1), np.float32)

    def skin(self) -> Floats:
        """Return the median colour, float32[3], of the upper half of the face."""
        inside = (np.abs(self.x - 0.5) < 0.25) & (self.y > 0.15) & (self.y < 0.5)
        if not inside.any():
            return np.array([150, 115, 95], np.float32)
        return np.asarray(np.median(self.part[inside], axis=0), np.float32)

    def grain(self, random: np.random.Generator, across: float, down: float) -> Floats:
        """Return random values, float32[h, w], of mean 0 and deviation about 1.

        Args:
            random: what they are drawn from.
            across: the width of a patch of similar values, in face widths.
            down: its height, in face heights.
        """
        rows = max(2, round(float(np.ptp(self.y)) / down))
        columns = max(2, round(float(np.ptp(self.x)) / across))
        rows, columns = min(rows, self.x.shape[0]), min(columns, self.x.shape[1])
        coarse = random.normal(0, 1, (rows, columns)).astype(np.float32)
        at_y = np.linspace(0, rows - 1, self.x.shape[0])
        at_x = np.linspace(0, columns - 1, self.x.shape[1])
        y0, x0 = np.minimum(at_y.astype(int), rows - 2), np.minimum(at_x.astype(int), columns - 2)
        fy, fx = (at_y - y0)[:, None], (at_x - x0)[None]
        top = coarse[y0][:, x0] * (1 - fx) + coarse[y0][:, x0 + 1] * fx
        low = coarse[y0 + 1][:, x0] * (1 - fx) + coarse[y0 + 1][:, x0 + 1] * fx
        return np.asarray(1.4 * (top * (1 - fy) + low * fy), np.float32)

    def laid(self, colour: Any, opacity: Any) -> Floats:
        """Return float32[h, w, 3], the part with a colour laid over it.

        Args:
            colour: 0 to 255, [3] or [h, w, 3].
            opacity: [h, w], 0 to 1.
        """
        alpha = np.clip(opacity, 0, 1)[..., None]
        return np.asarray(alpha * np.clip(colour, 0, 255) + (1 - alpha) * self.part, np.float32)

    def with_part(self, part: Floats) -> Window:
        """Return the window with other pixels."""
        return Window(part, self.x, self.y, self.pixel)


Draw = Callable[[Window, np.random.Generator], Floats]


def occluded(
    pixels: Pixels, box: NDArray[np.floating[Any]], name: str, random: np.random.Generator
) -> tuple[Pixels, str]:
    """Return a copy of an image in which a face wears or holds something, and the face's class.

    Args:
        pixels: uint8[h, w, 3] in RGB.
        box: of the face, xyxy in pixels.
        name: its class, one of the face mask set's; for other classes nothing is drawn.
        random: chooses the thing and its shape.
    """
    choices = _CHOICES.get(name)
    wide, high = float(box[2] - box[0]), float(box[3] - box[1])
    if choices is None or min(wide, high) < LEAST_SIDE:
        return pixels, name
    weights = np.array([weight for weight, _, _ in choices])
    _, draw, becomes = choices[int(random.choice(len(choices), p=weights / weights.sum()))]
    rows, columns = pixels.shape[:2]
    left, top = int(max(box[0] - _AROUND * wide, 0)), int(max(box[1] - _AROUND * high, 0))
    right = int(min(box[2] + _AROUND * wide + 1, columns))
    bottom = int(min(box[3] + _AROUND * high + 1, rows))
    x = ((np.arange(left, right) + 0.5 - box[0]) / wide).astype(np.float32)
    y = ((np.arange(top, bottom) + 0.5 - box[1]) / high).astype(np.float32)
    # For half of the faces the drawing is mirrored.
    if random.random() < 0.5:
        x = 1 - x
    across, down = np.meshgrid(x, y)
    part = pixels[top:bottom, left:right].astype(np.float32)
    drawn = draw(Window(part, across, down, 1 / wide), random)
    out = pixels.copy()
    out[top:bottom, left:right] = np.clip(drawn + 0.5, 0, 255).astype(np.uint8)
    return out, becomes or name


def _capsule(w: Window, a: tuple[float, float], b: tuple[float, float]) -> Floats:
    """Return the distance of every pixel from the line between two points."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    along = ((w.x - a[0]) * dx + (w.y - a[1]) * dy) / max(dx * dx + dy * dy, 1e-6)
    along = np.clip(along, 0, 1)
    return np.asarray(np.hypot(w.x - a[0] - along * dx, w.y - a[1] - along * dy), np.float32)


def _hand(w: Window, random: np.random.Generator) -> Floats:
    """Fingers over the mouth at any angle, a palm and a forearm."""
    skin = w.skin() * random.uniform(0.75, 1.15) + random.normal(0, 5, 3)
    angle = random.choice([random.uniform(-0.5, 0.5), random.uniform(-1.7, -0.9)])
    cos, sin = np.cos(angle), np.sin(angle)
    mouth = np.array([0.5 + random.normal(0, 0.05), random.uniform(0.66, 0.84)])
    count = int(random.integers(1, 6))
    thick = random.uniform(0.055, 0.085)
    reach = random.uniform(0.15, 0.45)
    out = w
    shade = 1 + 0.05 * w.grain(random, 0.15, 0.15)
    # Where the fingers start, out to one side, and the forearm from there.
    knuckle = mouth - np.array([cos, sin]) * random.uniform(0.2, 0.4)
    palm = knuckle - np.array([cos, sin]) * 0.22
    elbow = palm + np.array([random.uniform(-0.7, -0.1), random.uniform(0.8, 1.6)])
    lines = [(palm, elbow, random.uniform(0.14, 0.2))]
    lines.append((palm, knuckle, thick * max(count, 2) * 0.75))
    for k in range(count):
        off = (k - (count - 1) / 2) * thick * 1.85
        start = knuckle + off * np.array([-sin, cos])
        long = reach + 0.2 - 0.05 * abs(k - (count - 1) / 2)
        bend = random.normal(0, 0.03)
        lines.append((start, start + long * np.array([cos, sin]) + bend, thick))
    for a, b, radius in lines:
        away = _capsule(w, (a[0], a[1]), (b[0], b[1]))
        shadow = 0.35 * np.clip(1.5 - away / radius, 0, 1)
        out = out.with_part(out.laid(0.55 * out.part, shadow))
        light = (1.03 - 0.32 * np.clip(away / radius, 0, 1) ** 2) * shade
        out = out.with_part(out.laid(skin * light[..., None], w.edge(radius - away, 1.6)))
    return out.part


_HAIR = ((25, 20, 18), (50, 36, 26), (90, 62, 40), (120, 80, 45), (110, 105, 100), (190, 186, 180))


def _beard(w: Window, random: np.random.Generator) -> Floats:
    """A beard of any length and density, with or without moustache and free mouth."""
    tone = np.array(_HAIR[int(random.integers(len(_HAIR)))], np.float32)
    length = random.choice([random.uniform(0.0, 0.12), random.uniform(0.1, 0.5)])
    wide = random.uniform(0.4, 0.52)
    u = (w.x - 0.5) / wide
    jaw = w.edge((1 - u**2 - ((w.y - 0.62) / (0.38 + length)) ** 2) * 0.25, 3)
    rise = random.uniform(0.0, 0.35)
    start = random.uniform(0.58, 0.72) - rise * np.abs(u) ** 2
    lower = w.edge(w.y - start, 4)
    mouth = np.clip(1.3 - ((w.x - 0.5) / 0.16) ** 2 - ((w.y - 0.77) / 0.04) ** 2, 0, 1)
    mouth = mouth * (random.random() < 0.75)
    hair = w.grain(random, 0.03, 0.09)
    dense = random.uniform(0.55, 1.0)
    colour = tone * (1 + 0.3 * hair)[..., None]
    return w.laid(colour, jaw * lower * (1 - mouth) * np.clip(dense + 0.15 * hair, 0, 0.98))


_CLOTH = (
    (20, 20, 22), (40, 40, 46), (120, 30, 35), (35, 45, 85), (95, 95, 100), (40, 75, 55),
    (150, 120, 80), (200, 195, 185), (225, 225, 230), (180, 60, 90), (60, 120, 160), (90, 60, 40),
)  # fmt: skip


def _cloth(w: Window, random: np.random.Generator, plain: float = 0.5) -> Floats:
    """Return float32[h, w, 3] of dyed, printed, striped or checked cloth in folds."""
    chosen = np.array(_CLOTH)[random.integers(len(_CLOTH), size=2)]
    one, two = np.clip(chosen + random.normal(0, 12, (2, 3)), 0, 255)
    colour = np.broadcast_to(one, (*w.x.shape, 3)).astype(np.float32)
    if random.random() > plain:
        step, turn = random.uniform(0.08, 0.3), random.uniform(0, np.pi)
        u = (np.cos(turn) * w.x + np.sin(turn) * w.y) / step
        v = (np.cos(turn) * w.y - np.sin(turn) * w.x) / step
        kind = int(random.integers(5))
        printed = (
            (u % 1) < 0.5,
            ((u % 1) < 0.35) ^ ((v % 1) < 0.35),
            np.hypot(u % 1 - 0.5, v % 1 - 0.5) < random.uniform(0.2, 0.4),
            w.grain(random, step, step) > 0.3,
            np.sin(2 * np.pi * u) + np.sin(2 * np.pi * v) + 0.6 * w.grain(random, 0.1, 0.1) > 0.4,
        )[kind]
        colour = np.where(printed[..., None], two, colour).astype(np.float32)
    bow = random.uniform(-0.4, 0.4)
    phase, step = random.uniform(0, 1), random.uniform(0.15, 0.4)
    folds = np.sin(2 * np.pi * ((w.y + bow * (w.x - 0.5) ** 2) / step + phase))
    light = 1 + random.uniform(0.02, 0.15) * folds - 0.4 * (w.x - 0.5) ** 2
    return np.asarray(colour * (light + 0.04 * w.grain(random, 0.03, 0.03))[..., None], np.float32)


def _scarf(w: Window, random: np.random.Generator) -> Floats:
    """A scarf or a collar from the nose, the mouth or the chin down, wider than the face."""
    top = random.uniform(0.52, 1.0) - random.uniform(0.1, 0.4) * (2 * (w.x - 0.5)) ** 2
    top = top + random.normal(0, 0.1) * (w.x - 0.5)
    reach = random.uniform(0.5, 0.62) + random.uniform(0.1, 0.5) * np.clip(w.y - 0.75, 0, 1)
    bottom = random.uniform(1.2, 1.7)
    inside = w.edge(w.y - top, 2) * w.edge(bottom - w.y, 3) * w.edge(reach - np.abs(w.x - 0.5), 3)
    shadow = w.laid(0.6 * w.part, 0.5 * np.clip(1 - np.abs(w.y - top) / 0.08, 0, 1))
    return w.with_part(shadow).laid(_cloth(w, random), inside)


def _veil(w: Window, random: np.random.Generator) -> Floats:
    """A niqab or balaclava: only the eyes are seen."""
    high, low = random.uniform(0.18, 0.32), random.uniform(0.45, 0.56)
    bow = random.uniform(-0.1, 0.25) * (w.x - 0.5) ** 2
    slit = w.edge(w.y - high - bow, 2) * w.edge(low + bow - w.y, 2)
    slit = slit * w.edge(random.uniform(0.34, 0.5) - np.abs(w.x - 0.5), 2)
    head = 1 - ((w.x - 0.5) / random.uniform(0.6, 0.75)) ** 2 - ((w.y - 0.45) / 0.72) ** 2
    drape = w.edge(0.55 + 0.45 * np.clip(w.y - 0.6, 0, 1) - np.abs(w.x - 0.5), 3) * (w.y > 0.5)
    cover = np.maximum(w.edge(head * 0.3, 3), drape) * (1 - slit)
    return w.laid(_cloth(w, random, plain=0.85) * random.uniform(0.4, 1.0), cover)


def _hood(w: Window, random: np.random.Generator) -> Floats:
    """A headscarf or hood round the face."""
    inner = 1 - ((w.x - 0.5) / random.uniform(0.42, 0.52)) ** 2
    inner = inner - ((w.y - 0.55) / random.uniform(0.48, 0.58)) ** 2
    outer = 1 - ((w.x - 0.5) / random.uniform(0.68, 0.8)) ** 2 - ((w.y - 0.45) / 0.75) ** 2
    drape = w.edge(random.uniform(0.6, 0.8) - np.abs(w.x - 0.5), 3) * (w.y > 0.5)
    cover = np.maximum(w.edge(outer * 0.3, 3), drape) * w.edge(-inner * 0.25, 2)
    return w.laid(_cloth(w, random, plain=0.7), cover)


def _headwear(w: Window, random: np.random.Generator) -> Floats:
    """A cap, a hat or a helmet, down to the brows."""
    brow = random.uniform(0.02, 0.28)
    dome = 1 - ((w.x - 0.5) / random.uniform(0.5, 0.68)) ** 2
    dome = dome - ((w.y - brow) / random.uniform(0.3, 0.55)) ** 2
    cover = w.edge(dome * 0.3, 2) * w.edge(brow + 0.1 * (w.x - 0.5) ** 2 - w.y, 2)
    colour = _cloth(w, random, plain=0.8)
    gloss = 60 * np.clip(1 - ((w.x - 0.4) / 0.15) ** 2 - ((w.y - brow + 0.25) / 0.1) ** 2, 0, 1)
    drawn = w.with_part(w.laid(colour + gloss[..., None] * random.random(), cover))
    if random.random() < 0.5:
        brim = w.edge(0.05 - np.abs(w.y - brow), 2) * w.edge(0.62 - np.abs(w.x - 0.5), 2)
        return drawn.laid(0.7 * colour, brim)
    return drawn.part


def _glasses(w: Window, random: np.random.Generator) -> Floats:
    """Sunglasses, or glasses with thick rims."""
    y, wide, high = (
        random.uniform(0.33, 0.43),
        random.uniform(0.15, 0.22),
        random.uniform(0.08, 0.14),
    )
    power = random.choice([2.0, 4.0])
    lens = np.maximum(*(
        1 - (np.abs(w.x - x) / wide) ** power - (np.abs(w.y - y) / high) ** power
        for x in (0.5 - 1.1 * wide, 0.5 + 1.1 * wide)
    ))  # fmt: skip
    tone = np.array(_CLOTH[int(random.integers(2))], np.float32) + random.uniform(0, 30)
    clear = random.random() < 0.25
    glass = w.edge(lens * 0.1, 2) * (0.15 if clear else random.uniform(0.75, 1.0))
    rim = w.edge(0.02 - np.abs(lens) * 0.06, 2)
    bar = w.edge(0.015 - np.abs(w.y - y + 0.03), 2) * (np.abs(w.x - 0.5) < 0.5)
    shine = np.clip(1 - np.abs(w.x + w.y - random.uniform(0.6, 1.1)) / 0.06, 0, 1)[..., None]
    drawn = w.with_part(w.laid(tone + 90 * shine * random.random(), glass))
    return drawn.laid(0.6 * tone, np.maximum(rim, bar))


def _shield(w: Window, random: np.random.Generator) -> Floats:
    """A transparent shield in front of the whole face, with a band over the brows."""
    reach = random.uniform(0.52, 0.68)
    inside = w.edge(reach - np.abs(w.x - 0.5), 2) * w.edge(w.y - 0.02, 2)
    inside = inside * w.edge(random.uniform(1.05, 1.35) - w.y - 0.2 * (w.x - 0.5) ** 2, 2)
    tint = np.array([205, 220, 232], np.float32) + random.normal(0, 12, 3)
    lean, at = random.uniform(-0.4, 0.4), random.uniform(0.15, 0.85)
    streak = np.clip(1 - np.abs(w.x + lean * w.y - at) / random.uniform(0.03, 0.12), 0, 1)
    rim = np.clip(1 - np.abs(reach - np.abs(w.x - 0.5)) / 0.025, 0, 1) * (w.y > 0) * (w.y < 1.2)
    seen = random.uniform(0.05, 0.28) + random.uniform(0.2, 0.6) * streak + 0.3 * rim
    drawn = w.with_part(w.laid(tint, inside * seen))
    band = w.edge(0.06 - np.abs(w.y - 0.04), 2) * w.edge(reach - np.abs(w.x - 0.5), 2)
    tone = np.array(_CLOTH[int(random.integers(len(_CLOTH)))], np.float32)
    return drawn.laid(tone, band * random.uniform(0.5, 1.0))


def _object(w: Window, random: np.random.Generator) -> Floats:
    """A cup, a telephone, a microphone or food in front of the mouth."""
    x, y = random.normal(0.5, 0.08), random.uniform(0.68, 0.9)
    wide, high = random.uniform(0.1, 0.3), random.uniform(0.1, 0.35)
    turn = random.uniform(-0.6, 0.6)
    u = np.cos(turn) * (w.x - x) + np.sin(turn) * (w.y - y)
    v = np.cos(turn) * (w.y - y) - np.sin(turn) * (w.x - x)
    power = random.choice([2.0, 8.0])
    shape = 1 - (np.abs(u) / wide) ** power - (np.abs(v) / high) ** power
    light = 1 - 0.5 * (u / wide) ** 2
    colour = (
        random.uniform(10, 245, 3)
        * light[..., None]
        * (1 + 0.06 * w.grain(random, 0.1, 0.1))[..., None]
    )
    drawn = w.with_part(w.laid(colour, w.edge(shape * 0.12, 2)))
    return _hand(drawn, random) if random.random() < 0.3 else drawn.part


def _worn(w: Window, random: np.random.Generator, top: float, bottom: float) -> Floats:
    """Draw a mask between two heights of a face, with its loops."""
    wide = random.uniform(0.38, 0.48)
    bridge = random.uniform(0.02, 0.12)
    u = (w.x - 0.5) / wide
    upper = top + bridge * np.abs(u) ** 1.5
    narrow = random.uniform(0.15, 0.5) * np.clip((w.y - top) / max(bottom - top, 0.1), 0, 1) ** 2
    inside = w.edge(w.y - upper, 1.6) * w.edge(bottom - 0.12 * u**2 - w.y, 1.6)
    inside = inside * w.edge((1 - narrow - np.abs(u)) * wide, 1.6)
    if random.random() < 0.5:
        tones = ((150, 195, 220), (228, 232, 236), (240, 240, 240), (30, 30, 33), (120, 180, 170))
        tone = np.array(tones[int(random.integers(len(tones)))]) + random.normal(0, 8, 3)
        count = int(random.integers(2, 5))
        pleat = np.sin(np.pi * count * (w.y - top) / max(bottom - top, 0.1))
        colour = (
            tone * (1 + 0.06 * pleat - 0.25 * u**2 + 0.02 * w.grain(random, 0.05, 0.05))[..., None]
        )
    else:
        colour = _cloth(w, random, plain=0.35)
    middle = (upper + bottom) / 2
    loops = np.maximum(
        w.edge(0.012 - np.abs(w.y - upper - 0.25 * (np.abs(u) - 0.9)), 1.5),
        w.edge(0.012 - np.abs(w.y - middle - 0.1 + 0.3 * (np.abs(u) - 0.9)), 1.5),
    )
    loops = loops * (np.abs(u) > 0.9) * (np.abs(w.x - 0.5) < 0.52)
    drawn = w.with_part(
        w.laid(0.75 * w.part, 0.4 * np.clip(1 - np.abs(w.y - upper) / 0.06, 0, 1) * (np.abs(u) < 1))
    )
    drawn = drawn.with_part(drawn.laid(np.full(3, 225.0), 0.8 * loops))
    return drawn.laid(colour, inside)


def _mask(w: Window, random: np.random.Generator) -> Floats:
    return _worn(w, random, random.uniform(0.42, 0.54), random.uniform(0.95, 1.06))


def _low_mask(w: Window, random: np.random.Generator) -> Floats:
    """A mask below the nose, or on the chin."""
    if random.random() < 0.7:
        return _worn(w, random, random.uniform(0.66, 0.73), random.uniform(0.98, 1.08))
    return _worn(w, random, random.uniform(0.84, 0.92), random.uniform(1.08, 1.2))


def _dyed(w: Window, random: np.random.Generator) -> Floats:
    """Other cloth in place of the mask, with the mask's light and folds.

    What is nearer in colour to the lower middle of the face than to its brow counts as mask.
    """
    lower = (np.abs(w.x - 0.5) < 0.15) & (np.abs(w.y - 0.75) < 0.12)
    if not lower.any():
        return w.part
    own, skin = np.median(w.part[lower], axis=0), w.skin()
    near, far = (np.linalg.norm(w.part - c, axis=-1) for c in (own, skin))
    like = 1 / (1 + np.exp(np.clip((near - far) / 15.0, -30, 30)))
    reach = np.clip((1.1 - ((w.x - 0.5) / 0.55) ** 2 - ((w.y - 0.73) / 0.36) ** 2) / 0.2, 0, 1)
    core = np.clip((1 - ((w.x - 0.5) / 0.33) ** 2 - ((w.y - 0.75) / 0.2) ** 2) / 0.3, 0, 1)
    light = w.part.mean(-1) / max(float(own.mean()), 8.0)
    colour = _cloth(w, random, plain=0.4) * np.clip(light, 0.5, 1.4)[..., None]
    return w.laid(colour, np.maximum(reach * like, core))


def _neck(w: Window, random: np.random.Generator) -> Floats:
    """A scarf or collar below the chin."""
    inside = w.edge(w.y - random.uniform(0.98, 1.08), 2) * w.edge(0.7 - np.abs(w.x - 0.5), 3)
    return w.laid(_cloth(w, random), inside)


_WITH, _WITHOUT, _IMPROPER = "with_mask", "without_mask", "mask_weared_incorrect"
_WHATEVER: list[tuple[float, Draw, str]] = [
    (0.16, _glasses, ""),
    (0.10, _shield, ""),
    (0.12, _headwear, ""),
    (0.08, _hood, ""),
    (0.06, _neck, ""),
]
# By class: how often each thing is drawn, and the class that the face gets, "" for its own.
_CHOICES: dict[str, list[tuple[float, Draw, str]]] = {
    _WITHOUT: [
        (0.22, _hand, ""),
        (0.16, _beard, ""),
        (0.16, _scarf, ""),
        (0.16, _veil, ""),
        (0.12, _object, ""),
        (0.10, _mask, _WITH),
        (0.12, _low_mask, _IMPROPER),
        *[(weight / 2, draw, name) for weight, draw, name in _WHATEVER],
    ],
    _WITH: [(0.6, _dyed, ""), *_WHATEVER],
    _IMPROPER: [*_WHATEVER],
}
