"""A chest phantom: signs and a body in, the attenuation behind a radiograph and its masks out."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter

from medfuse.synthetic.patient import Patient

FIELD_MM = 350.0
"""The detector's width."""

Plane = Float[np.ndarray, "rows columns"]
Mask = Bool[np.ndarray, "rows columns"]


@dataclass(frozen=True, slots=True)
class Body:
    """The anatomy that all views of one patient share, in mm.

    Attributes:
        half_width: Half of the inner width of the thorax where it is widest.
        apex: From the detector's upper edge to the lungs' apices.
        dome: From the detector's upper edge to the right hemidiaphragm's dome.
        rib_spacing: From one rib to the next.
        breast: How much soft tissue lies over the lower lungs, relative to the lungs' contrast.
    """

    half_width: float
    apex: float
    dome: float
    rib_spacing: float
    breast: float


@dataclass(frozen=True, slots=True)
class Lesions:
    """Where and how each sign is rendered in both views if it is present, in mm.

    Drawn whether or not the sign is there, so that a sign changes nothing but itself.

    Attributes:
        nodule: Position (x, y) in the frontal view and depth z in the lateral one; a negative x is
            the patient's right, a negative z the front.
        nodule_radius: Of its sharp part.
        nodule_contrast: Of its centre, relative to the lungs' contrast; calcium makes it more
            than 1.
        opacity: Position (x, y, z) of the consolidation's centre.
        opacity_radius: Its extent.
        opacity_contrast: Relative to the lungs' contrast.
        heart_share: The cardiothoracic ratio when the heart is not enlarged, and when it is.
        effusion_sides: On which sides there is fluid.
        effusion_height: How far the fluid rises above the costophrenic angle.
    """

    nodule: tuple[float, float, float]
    nodule_radius: float
    nodule_contrast: float
    opacity: tuple[float, float, float]
    opacity_radius: float
    opacity_contrast: float
    heart_share: tuple[float, float]
    effusion_sides: tuple[int, ...]
    effusion_height: float


@dataclass(frozen=True, slots=True)
class View:
    """One rendered view.

    Attributes:
        attenuation: In [0, 1] but for noise; bright is dense.
        spacing_mm: Side of a pixel.
        masks: The planted signs' pixels.
    """

    attenuation: Plane
    spacing_mm: float
    masks: Mapping[str, Mask]


def make_body(patient: Patient, rng: np.random.Generator) -> Body:
    """Draw a patient's anatomy; the size goes with the sex, and nothing with the findings."""
    female = patient.sex == "F"
    return Body(
        half_width=float(rng.normal(128 if female else 138, 5)),
        apex=float(rng.uniform(40, 55)),
        dome=float(rng.uniform(222, 240)),
        rib_spacing=float(rng.uniform(24, 28)),
        breast=float(rng.uniform(0.08, 0.2)) if female else float(rng.uniform(0, 0.05)),
    )


def draw_lesions(body: Body, rng: np.random.Generator) -> Lesions:
    """Choose where the signs would be, so that in the frontal view none hides another."""
    side, opacity_side = (int(rng.choice((-1, 1))) for _ in range(2))
    # An enlarged heart lies in front of the left lung's lower half.
    nodule_y = body.apex + rng.uniform(60, 115 if side < 0 else 85)
    opacity_y = body.apex + rng.uniform(58, 130 if opacity_side < 0 else 88)
    if opacity_side == side and abs(opacity_y - nodule_y) < 70:
        side = -side
        nodule_y = min(nodule_y, body.apex + 85)
    nodule_radius, opacity_radius = rng.uniform(13, 15), rng.uniform(34, 46)
    nodule_x = side * rng.uniform(
        0.47 * body.half_width, float(_inner_half_width(body, nodule_y)) - nodule_radius - 3
    )
    opacity_x = opacity_side * min(
        rng.uniform(0.48, 0.58) * body.half_width,
        float(_inner_half_width(body, opacity_y)) - 0.7 * opacity_radius,
    )
    both = rng.random() < 0.35
    return Lesions(
        nodule=(nodule_x, nodule_y, float(rng.uniform(-40, 40))),
        nodule_radius=float(nodule_radius),
        nodule_contrast=float(rng.uniform(1.1, 1.6)),
        opacity=(opacity_x, opacity_y, float(rng.uniform(-30, 30))),
        opacity_radius=float(opacity_radius),
        opacity_contrast=float(rng.uniform(0.65, 0.9)),
        heart_share=(float(rng.uniform(0.38, 0.46)), float(rng.uniform(0.57, 0.68))),
        effusion_sides=(-1, 1) if both else (int(rng.choice((-1, 1))),),
        effusion_height=float(rng.uniform(35, 60)),
    )


def render_frontal(
    signs: frozenset[str], body: Body, lesions: Lesions, size: int, rng: np.random.Generator
) -> View:
    """Render the posteroanterior view; the patient's right is on the left."""
    x, y, spacing = _grid(size, rng)
    side = np.abs(x)
    wall = _inner_half_width(body, y)
    dome = body.dome + np.where(x > 0, 8.0, 0.0)
    curve = (side - 0.45 * body.half_width) / (0.55 * body.half_width)
    floor = dome + 38 * curve**2 * np.where(curve > 0, 1.0, 0.35)
    spine_edge = 20 + 6 * _step((y - 120) / 40)
    lungs = (
        _step((wall - side) / 1.6)
        * _step((floor - y) / 1.4)
        * _step((side - spine_edge) / 3)
        * _step((y - body.apex) / 3)
    )

    masks: dict[str, Mask] = {}
    enlarged = "enlarged_heart" in signs
    heart = _heart(x, y, body, lesions.heart_share[enlarged])
    if enlarged:
        masks["enlarged_heart"] = heart > 0.5

    air = lungs * (1 - 0.92 * heart)
    fill = np.zeros_like(x)  # the share of the lung's air that is replaced
    if "consolidation" in signs:
        patch = _patch(x, y, lesions.opacity[:2], lesions.opacity_radius, rng) * (lungs > 0.2)
        masks["consolidation"] = patch * air > 0.4
        fill = _stack(fill, lesions.opacity_contrast * patch)
    if "effusion" in signs:
        fluid = np.zeros_like(x)
        for pole in lesions.effusion_sides:
            # The meniscus climbs towards the wall.
            level = (
                body.dome
                + 22
                - lesions.effusion_height
                * (0.35 + 0.65 * np.clip(pole * x / body.half_width, 0, 1) ** 3)
            )
            fluid = np.maximum(fluid, _step((y - level) / 2.5) * (pole * x > 15))
        masks["effusion"] = fluid * air > 0.5
        fill = _stack(fill, 0.95 * fluid)
    if "nodule_opacity" in signs:
        ball, masks["nodule_opacity"] = _ball(x, y, lesions.nodule[:2], lesions.nodule_radius)
        fill += lesions.nodule_contrast * ball * (1 - fill)
    breast = np.zeros_like(x)
    for pole in (-1, 1):
        dx = 0.95 * (x - pole * 0.52 * body.half_width)
        breast += _step((58 - np.hypot(dx, y - body.dome + 42)) / 2.5)
    fill = _stack(fill, body.breast * breast)
    fill = _stack(fill, 0.45 * _vessels(x.shape, spacing, body, rng))

    shoulder = 58 + 62 * (side / 175) ** 2 - 75 * np.exp(-((side / 42) ** 4))
    trunk = _step((y - shoulder) / 3) * _step(
        (body.half_width + 24 + 14 * _step((150 - y) / 12) - side) / 3
    )
    thickness = 0.62 + 0.1 * _step((y - body.dome + 10) / 30)
    image = trunk * thickness - 0.46 * air * (1 - fill)
    image += 0.12 * _step((19 + 2 * np.cos(2 * np.pi * y / 26) - side) / 2) * trunk
    image += 0.07 * np.exp(-((side / 11) ** 2)) * -_step((130 - y) / 5) * trunk  # trachea
    image += _ribs(side, y, body, lungs) + _clavicles(side, y, body) * trunk
    gas = np.hypot((x - 62) / 28, (y - body.dome - 34) / 15)
    image -= 0.16 * _step((1 - gas) / 0.15) * (rng.random() < 0.6)
    image += _devices(x, y, rng)
    return View(_soften(image, rng), spacing, masks)


def render_lateral(
    signs: frozenset[str], body: Body, lesions: Lesions, size: int, rng: np.random.Generator
) -> View:
    """Render the left lateral view; the patient faces left."""
    x, y, spacing = _grid(size, rng)
    depth = 0.78 * body.half_width
    wall = depth * _widen((y - body.apex + 8) / (body.dome + 30 - body.apex))
    floor = (
        body.dome - 6 + 0.28 * (x + depth) * (x > -depth) * 0.5 + 22 * np.clip(x / depth, 0, 1) ** 2
    )
    lungs = _step((wall - np.abs(x)) / 2) * _step((floor - y) / 1.6) * _step((y - body.apex) / 3)

    masks: dict[str, Mask] = {}
    enlarged = "enlarged_heart" in signs
    # The heart lies on the diaphragm behind the sternum; an enlarged one reaches the spine's front.
    reach = depth * (0.95 if not enlarged else 1.4) * lesions.heart_share[enlarged] / 0.5
    heart = _ellipse(x, y, (-depth * 0.9 + reach * 0.5, body.dome - 34), (reach * 0.62, 50.0), -0.5)
    if enlarged:
        masks["enlarged_heart"] = (heart > 0.5) & (lungs > 0.2)
    air = lungs * (1 - 0.75 * heart)
    fill = np.zeros_like(x)
    if "consolidation" in signs:
        centre = (lesions.opacity[2], lesions.opacity[1])
        patch = _patch(x, y, centre, lesions.opacity_radius, rng) * (lungs > 0.2)
        masks["consolidation"] = patch * air > 0.4
        fill = _stack(fill, 0.8 * lesions.opacity_contrast * patch)
    if "effusion" in signs:
        level = (
            body.dome + 12 - lesions.effusion_height * (0.3 + 0.7 * np.clip(x / depth, 0, 1) ** 2)
        )
        fluid = _step((y - level) / 2.5) * _step((x - 0.1 * depth) / 8)
        masks["effusion"] = fluid * air > 0.5
        fill = _stack(fill, 0.9 * fluid)
    if "nodule_opacity" in signs:
        centre = (lesions.nodule[2], lesions.nodule[1])
        ball, masks["nodule_opacity"] = _ball(x, y, centre, lesions.nodule_radius)
        fill += lesions.nodule_contrast * ball * (1 - fill)
    fill = _stack(fill, 0.4 * _vessels(x.shape, spacing, body, rng, lateral=True))

    trunk = _step((depth + 26 + 20 * _step((y - body.dome) / 30) - np.abs(x)) / 3)
    trunk = trunk * _step((y - 18 - 40 * (np.abs(x) / 120) ** 4) / 4)
    image = trunk * (0.66 + 0.1 * _step((y - body.dome) / 30)) - 0.44 * air * (1 - fill)
    bend = depth * 0.78 + 14 * np.cos((y - 140) / 75)
    vertebra = 0.8 + 0.2 * np.cos(2 * np.pi * y / 27)
    image += 0.11 * _step((13 - np.abs(x - bend)) / 2) * vertebra * trunk
    image += 0.09 * _step((5 - np.abs(x + wall * 0.98)) / 2) * (y < body.dome - 40) * (y > 80)
    phase = (y - 0.45 * x - 0.0012 * x**2) / body.rib_spacing
    image += 0.035 * np.exp(-(((phase % 1 - 0.5) / 0.17) ** 2)) * lungs
    image += _devices(x, y, rng)
    return View(_soften(image, rng), spacing, masks)


def _grid(size: int, rng: np.random.Generator) -> tuple[Plane, Plane, float]:
    """Millimetres from the midline and from the upper edge, for a detector about ``size`` wide."""
    columns = int(size * rng.uniform(0.9, 1.1)) // 2 * 2
    rows = int(columns * rng.choice((1.0, 1.0, 1.1)))
    spacing = FIELD_MM / columns
    shift = rng.uniform(-8, 8)
    turn = np.deg2rad(rng.uniform(-2.5, 2.5))
    across = (np.arange(columns, dtype=np.float32) - (columns - 1) / 2) * spacing + shift
    down = np.arange(rows, dtype=np.float32) * spacing + rng.uniform(-8, 8) - (rows - columns) / 3
    x = across[None, :] * np.cos(turn) - (down[:, None] - 170) * np.sin(turn)
    y = across[None, :] * np.sin(turn) + (down[:, None] - 170) * np.cos(turn) + 170
    return x.astype(np.float32), y.astype(np.float32), float(spacing)


def _step(values: Plane) -> Plane:
    """Rise smoothly from 0 to 1 around 0."""
    return np.asarray(1 / (1 + np.exp(-np.clip(2 * values, -30, 30))), dtype=np.float32)


def _inner_half_width(body: Body, y: float | Plane) -> Float[np.ndarray, "..."]:
    """From the midline to the inside of the chest wall at a height in the frontal view."""
    share = _widen(np.asarray((y - body.apex) / (body.dome + 25 - body.apex)))
    return np.asarray(body.half_width * share)


def _widen(u: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """The lungs' half width from apex (0) to base (1), relative to its largest."""
    return np.asarray(np.clip(1 - np.abs(1 - np.clip(u, 0, 1.3)) ** 2.4, 0, 1) ** 0.55)


def _stack(fill: Plane, more: Plane) -> Plane:
    """Add matter to what already fills the air; together never more than all of it."""
    return np.asarray(1 - (1 - fill) * (1 - more))


def _ellipse(
    x: Plane, y: Plane, centre: tuple[float, float], axes: tuple[float, float], turn: float
) -> Plane:
    dx, dy = x - centre[0], y - centre[1]
    u = (dx * np.cos(turn) + dy * np.sin(turn)) / axes[0]
    v = (-dx * np.sin(turn) + dy * np.cos(turn)) / axes[1]
    return _step((1 - np.hypot(u, v)) * min(axes) / 2.5)


def _heart(x: Plane, y: Plane, body: Body, share: float) -> Plane:
    """The heart, ``share`` of the thorax's inner width wide, with the aorta and great vessels."""
    width = 2 * body.half_width * share
    turn = 0.55
    tall = 0.5 * width * 0.68 + 8
    # A turned ellipse with semi-axes a, b is 2 sqrt(a^2 cos^2 + b^2 sin^2) wide.
    a = np.sqrt((width / 2) ** 2 - (tall * np.sin(turn)) ** 2) / np.cos(turn)
    centre = (0.17 * width, body.dome - 0.55 * tall)
    heart = _ellipse(x, y, centre, (float(a), float(tall)), turn)
    trunk = _ellipse(x, y, (4.0, body.apex + 85), (30.0, 62.0), 0.0)
    knob = _ellipse(x, y, (24.0, body.apex + 52), (16.0, 17.0), 0.0)
    return np.asarray(np.maximum(heart, np.maximum(trunk, knob)))


def _ball(x: Plane, y: Plane, centre: tuple[float, float], radius: float) -> tuple[Plane, Mask]:
    """A round lesion with a blurred edge, and its disc."""
    distance = np.hypot(x - centre[0], y - centre[1])
    return _step((radius - distance) / 2.2), distance <= radius


def _patch(
    x: Plane, y: Plane, centre: tuple[float, float], radius: float, rng: np.random.Generator
) -> Plane:
    """An irregular cloud without an edge, about ``radius`` wide and mottled."""
    cloud = np.zeros_like(x)
    for _ in range(6):
        cx, cy = np.array(centre) + rng.normal(0, 0.33 * radius, 2)
        cloud += np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * (0.52 * radius) ** 2))
    mottle = _texture(x.shape, 12, rng)
    return np.asarray(np.clip(1.6 * cloud / cloud.max(), 0, 1) * np.clip(0.88 + 0.1 * mottle, 0, 1))


def _ribs(side: Plane, y: Plane, body: Body, lungs: Plane) -> Plane:
    """Posterior ribs that slope down to the sides, and fainter anterior ones that slope up."""
    u = side / body.half_width
    image = np.zeros_like(y)
    for slope, strength in ((-8 * np.sin(np.pi * u) + 34 * u**2, 0.05), (60 - 48 * u**1.5, 0.022)):
        phase = ((y - body.apex - slope) / body.rib_spacing) % 1 - 0.5
        bone = _step((0.17 - np.abs(phase)) / 0.03)
        cortex = np.exp(-(((np.abs(phase) - 0.15) / 0.04) ** 2))
        image += strength * (bone + 0.5 * cortex)
    return np.asarray(image * lungs * (y < body.dome + 30))


def _clavicles(side: Plane, y: Plane, body: Body) -> Plane:
    line = body.apex + 26 - 0.16 * side + 5 * np.sin(side / 22)
    inside = _step((side - 14) / 3) * _step((body.half_width + 4 - side) / 6)
    return np.asarray(0.09 * _step((5.5 - np.abs(y - line)) / 1.4) * inside)


def _vessels(
    shape: tuple[int, ...],
    spacing: float,
    body: Body,
    rng: np.random.Generator,
    *,
    lateral: bool = False,
) -> Plane:
    """Vessels that branch out from the hila and thin out; some are seen end on, as small dots."""
    rows, columns = shape
    hila = (0.0,) if lateral else (-32.0, 32.0)
    planes = [np.zeros(rows * columns) for _ in range(2)]
    for hilum in hila:
        away = np.sign(hilum) or rng.choice((-1, 1))
        for _ in range(13):
            heading = rng.uniform(-1.25, 1.25)
            length = rng.uniform(45, 95)
            steps = int(length / spacing * 1.5)
            t = np.linspace(0, 1, steps)
            bend = heading + np.cumsum(rng.normal(0, 0.035, steps))
            direction = away if not lateral else rng.choice((-1, 1))
            vx = hilum + direction * np.cumsum(np.cos(bend)) * length / steps
            vy = body.apex + 95 + np.cumsum(np.sin(bend)) * length / steps
            column = np.round(vx / spacing + columns / 2).astype(int)
            row = np.round(vy / spacing).astype(int)
            ok = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
            place = row[ok] * columns + column[ok]
            np.add.at(planes[0], place, np.clip(1.4 - 2.2 * t[ok], 0, 1))
            np.add.at(planes[1], place, np.clip(1.1 - t[ok], 0, 0.7))
    thick, thin = (plane.reshape(rows, columns) for plane in planes)
    lines = 5.5 * gaussian_filter(thick, 2.4 / spacing) + 2.0 * gaussian_filter(thin, 0.9 / spacing)
    return np.asarray(np.clip(lines, 0, 0.8), dtype=np.float32)


def _devices(x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    """Electrodes with their leads: small, sharp and ringed, and never a sign of anything."""
    image = np.zeros_like(x)
    if rng.random() < 0.6:
        return image
    for _ in range(int(rng.integers(1, 4))):
        cx, cy = rng.uniform(-100, 100), rng.uniform(70, 230)
        distance = np.hypot(x - cx, y - cy)
        image += 0.22 * _step((2.2 - distance) / 0.6)
        image += 0.16 * np.exp(-(((distance - 6) / 0.9) ** 2))
        lead = cx + (y - cy) * rng.uniform(-0.5, 0.5) + 6 * np.sin((y - cy) / 30)
        image += 0.1 * np.exp(-(((x - lead) / 0.9) ** 2)) * (y > cy)
    return image


def _texture(shape: tuple[int, ...], grain: int, rng: np.random.Generator) -> Plane:
    """Smooth noise with unit variance whose grains are about this many pixels wide."""
    smooth = rng.standard_normal([n // grain + 2 for n in shape], dtype=np.float32)
    for axis, n in enumerate(shape):
        whole, part = np.divmod(np.arange(n, dtype=np.float32) / grain, 1)
        cells = whole.astype(int)
        weight = part.reshape((-1, 1) if axis == 0 else (1, -1))
        low, high = smooth.take(cells, axis), smooth.take(cells + 1, axis)
        smooth = low + weight * (high - low)
    return np.asarray(smooth / smooth.std(), dtype=np.float32)


def _soften(image: Plane, rng: np.random.Generator) -> Plane:
    """Add tissue texture, blur by the focal spot, and add noise that grows as less passes."""
    image = image + 0.012 * _texture(image.shape, 24, rng) + 0.008 * _texture(image.shape, 6, rng)
    image = gaussian_filter(image, rng.uniform(0.5, 0.9))
    dose = rng.uniform(0.006, 0.016)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(image + dose * np.exp(0.9 * image) * noise, dtype=np.float32)
