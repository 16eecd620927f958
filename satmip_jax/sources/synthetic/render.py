"""Renderer of synthetic scenes, whose pixels depend on the metadata.

Effect of each field:
  gsd: size of every object and grain of the ground, in pixels;
  sun azimuth and elevation: direction and length of shadows, bright and dark slopes, brightness;
  off-nadir and target azimuth: tall objects lean away from the satellite and show a wall; haze;
  latitude, day of year, aridity: snow, green, straw or sand;
  country: colour of the roofs, by its part of the world;
  cloud cover: share of the image under clouds, which cast shadows;
  sensor: colour response, contrast, sharpness.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from satmip_jax.sources.synthetic.layouts import WORLD, Layout, layout_of

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]

# The last number of a seed separates the random streams. It is never 0, because numpy treats a seed
# and the same seed followed by zeros as equal.

OVERSAMPLING = 2  # factor of the resolution at which scenes are drawn, for smooth edges
SUBPIXEL_BITS = 4  # fraction bits of OpenCV's drawing coordinates
CLOUD_HEIGHT = 55.0  # metres; unrealistically low, so that an image shows clouds and their shadows

# (gain of red, green, blue), contrast, blur in pixels
SENSORS: dict[str, tuple[tuple[float, float, float], float, float]] = {
    "QUICKBIRD02": ((0.92, 0.98, 1.08), 0.84, 0.65),
    "GEOEYE01": ((1.07, 1.00, 0.90), 1.00, 0.45),
    "WORLDVIEW02": ((0.99, 1.01, 0.97), 1.08, 0.35),
    "WORLDVIEW03_VNIR": ((1.03, 0.98, 1.00), 1.22, 0.0),
}

# material -> (red, green, blue without snow), share of it that snow can cover
MATERIALS: dict[str, tuple[tuple[int, int, int], float]] = {
    "asphalt": ((84, 84, 88), 0.35),
    "concrete": ((168, 164, 156), 0.6),
    "paint": ((225, 225, 215), 0.3),
    "soil": ((158, 134, 104), 0.85),
    "water": ((44, 66, 74), 0.55),
    "pool": ((86, 168, 190), 0.5),
    "panel": ((46, 52, 78), 0.15),
    "steel": ((232, 232, 232), 0.0),
    "aircraft": ((238, 238, 240), 0.1),
    "car": ((205, 205, 208), 0.2),
    "seats": ((150, 140, 140), 0.6),
    "track": ((170, 96, 74), 0.7),
    "roof_red": ((160, 92, 70), 0.7),
    "roof_grey": ((130, 130, 134), 0.7),
    "roof_white": ((224, 222, 216), 0.4),
    "roof_brown": ((122, 98, 80), 0.7),
    "roof_blue": ((104, 124, 150), 0.7),
}
# Sub-region of the United Nations -> (red, green, blue) that roofs tend to have there.
ROOFS: dict[str, tuple[int, int, int]] = {
    "Northern America": (98, 98, 102),
    "Latin America and the Caribbean": (178, 104, 70),
    "Northern Europe": (104, 80, 74),
    "Western Europe": (150, 86, 68),
    "Southern Europe": (200, 124, 88),
    "Eastern Europe": (146, 148, 150),
    "Northern Africa": (214, 190, 150),
    "Sub-Saharan Africa": (172, 148, 130),
    "Western Asia": (228, 216, 194),
    "Central Asia": (170, 170, 166),
    "Eastern Asia": (92, 118, 160),
    "South-eastern Asia": (164, 92, 58),
    "Southern Asia": (200, 186, 170),
    "Australia and New Zealand": (124, 140, 128),
}
LUSH, STRAW, SAND = (66, 98, 46), (164, 144, 98), (206, 178, 134)
SNOW = (236, 240, 246)
SHADE = np.array([0.36, 0.40, 0.49], np.float32)  # bluish skylight relative to full light


@dataclass(frozen=True)
class Scene:
    """One view of one place. Angles in degrees, azimuths clockwise from north.

    Attributes:
        category: Class, a key of `layouts.LAYOUTS`.
        place: Seed of the objects.
        visit: Seed of clouds and noise.
        width: Columns of the image, pixels.
        height: Rows of the image, pixels.
        gsd: Ground sampling distance, metres per pixel.
        latitude: Degrees north.
        day: Day of the year, from 1.
        aridity: 0 (rain forest) to 1 (desert).
        region: Sub-region of the United Nations.
        sun_azimuth: Direction of the sun, seen from the ground.
        sun_elevation: Height of the sun above the horizon.
        off_nadir: Angle between line of sight and vertical.
        target_azimuth: Direction of view of the satellite, seen from above.
        cloud_cover: Percentage of the image under clouds.
        sensor: A key of `SENSORS`.
    """

    category: str
    place: tuple[int, ...]
    visit: tuple[int, ...]
    width: int = 96
    height: int = 96
    gsd: float = 2.0
    latitude: float = 45.0
    day: float = 180.0
    aridity: float = 0.2
    region: str = ""
    sun_azimuth: float = 150.0
    sun_elevation: float = 45.0
    off_nadir: float = 10.0
    target_azimuth: float = 90.0
    cloud_cover: float = 0.0
    sensor: str = "WORLDVIEW02"


def climate(latitude: float, day: float, aridity: float) -> tuple[float, float]:
    """Return the shares of the ground that are green and under snow, from a seasonal temperature.

    The yearly mean falls by half a degree Celsius per degree of latitude; the seasonal amplitude
    grows with latitude.

    Args:
        latitude: Degrees north.
        day: Day of the year, from 1.
        aridity: 0 (rain forest) to 1 (desert).

    Returns:
        (green, snow), each from 0 to 1.

    Example:
        >>> from satmip_jax.sources.synthetic.render import climate
        >>> green, snow = climate(latitude=65.0, day=15, aridity=0.1)
        >>> green < 0.1 and snow > 0.9
        True
    """
    peak = 200 if latitude >= 0 else 17  # warmest day
    season = np.cos(2 * np.pi * (day - peak) / 365.25)
    swing = min(abs(latitude) * 0.32, 18)
    celsius = 29 - 0.5 * max(abs(latitude) - 8, 0) + swing * season
    snow = 1 / (1 + np.exp((celsius + 1.0) / 1.5))
    growth = 1 / (1 + np.exp(-(celsius - 9) / 2.5))
    # Away from the equator rain is seasonal, too, and turns drier places green for a while.
    rain = 1 - aridity * (1.0 + (0.45 if abs(latitude) > 10 else 0.0) * season)
    return float(growth * np.clip(rain, 0, 1)), float(snow)


def _palette(scene: Scene) -> tuple[dict[str, Floats], Floats, Floats, float]:
    """Return colours by material on that day, bare ground, green ground, and the share of green.

    Materials vary between places, so that colour does not give away the class.
    """
    green, snow = climate(scene.latitude, scene.day, scene.aridity)
    rng = np.random.default_rng([*scene.place, 8])
    light = np.exp(rng.uniform(-0.5, 0.35, (len(MATERIALS), 1)))
    tints = (light * np.exp(rng.normal(0, 0.06, (len(MATERIALS), 3)))).astype(np.float32)

    def mix(a: object, b: object, share: float) -> Floats:
        return np.asarray(a, np.float32) * (1 - share) + np.asarray(b, np.float32) * share

    dry = mix(STRAW, SAND, scene.aridity)
    colors = {}
    for (name, (color, hidden)), tint in zip(MATERIALS.items(), tints, strict=True):
        local = ROOFS.get(scene.region, color) if name.startswith("roof") else color
        usual = mix(color, local, 0.6)
        colors[name] = mix(np.minimum(usual * tint, 245), SNOW, snow * hidden)
    lush = mix(LUSH, (88, 122, 52), 0.5 if abs(scene.latitude) > 30 else 0.0)
    colors["tree"] = mix(mix((92, 82, 62), (40, 66, 34), 0.25 + 0.75 * green), SNOW, 0.45 * snow)
    colors["pitch"] = mix(mix(STRAW, (80, 128, 56), 0.4 + 0.6 * green), SNOW, 0.9 * snow)
    for k, share in enumerate((1.15, 0.8, 0.45, 0.1)):  # crops ripen at different times
        colors[f"crop_{k}"] = mix(mix(dry, lush, min(share * green * 1.1, 1)), SNOW, 0.8 * snow)
    return colors, mix(dry, SNOW, 0.9 * snow), mix(lush, SNOW, 0.9 * snow), green


class _Canvas:
    """Map from ground coordinates to pixels, at `OVERSAMPLING` times the scene's resolution."""

    def __init__(self, scene: Scene):
        self.width, self.height = scene.width * OVERSAMPLING, scene.height * OVERSAMPLING
        self.scale = OVERSAMPLING / scene.gsd  # pixels per metre

    def pixels(self, points: NDArray[np.float64]) -> NDArray[np.int32]:
        """Convert metres (..., 2) to fixed-point pixels (..., 2); rows increase southwards."""
        middle = np.array([self.width - 1, self.height - 1]) / 2
        pixels = points * np.array([self.scale, -self.scale]) + middle
        return np.rint(pixels * (1 << SUBPIXEL_BITS)).astype(np.int32)

    def noise(
        self, rng: np.random.Generator, cell: float, shift: tuple[float, float] = (0, 0)
    ) -> Floats:
        """Return smooth noise fixed to the ground; unit variance at nodes `cell` metres apart."""
        n = int(2 * WORLD / cell) + 4
        nodes = rng.standard_normal((n, n), np.float32)
        step = 1 / (self.scale * cell)
        matrix = np.array(
            [
                [step, 0, n / 2 - step * self.width / 2 + shift[0] / cell],
                [0, step, n / 2 - step * self.height / 2 - shift[1] / cell],
            ]
        )
        sampled = cv2.warpAffine(
            nodes,
            matrix,
            (self.width, self.height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        return np.asarray(sampled, np.float32)


def _direction(azimuth: float) -> NDArray[np.float64]:
    """Return the unit vector (east, north) of an azimuth in degrees."""
    return np.array([np.sin(np.radians(azimuth)), np.cos(np.radians(azimuth))])


def _ground(scene: Scene, canvas: _Canvas, bare: Floats, lush: Floats, green: float) -> Floats:
    """Return the land without objects, (height, width, 3): green patches, grain at two scales."""
    rng = np.random.default_rng([*scene.place, 2])
    patches: Floats = 0.7 * canvas.noise(rng, 45) + 0.5 * canvas.noise(rng, 14)
    grain: Floats = 0.075 * canvas.noise(rng, 3.5) + 0.05 * canvas.noise(rng, 9)
    share = 1 / (1 + np.exp(-(2.2 * patches + 7 * (green - 0.5))))
    return (bare + share[..., None] * (lush - bare)) * (1 + grain[..., None])


def _draw(
    scene: Scene, canvas: _Canvas, layout: Layout, ground: Floats, colors: dict[str, Floats]
) -> Floats:
    """Paint areas, then shadows, then walls and roofs over the ground."""
    for flat in layout.flats:
        color = (colors[flat.material] * flat.tint).tolist()
        cv2.fillPoly(ground, list(canvas.pixels(flat.outlines)), color, shift=SUBPIXEL_BITS)

    if not layout.solids:
        return ground
    sun = _direction(scene.sun_azimuth)
    view = _direction(scene.target_azimuth)
    shadow = -sun / np.tan(np.radians(max(scene.sun_elevation, 5.0)))  # metres per metre of height
    lean = view * np.tan(np.radians(scene.off_nadir))
    # Leaning objects cover those behind them: start with the farthest along the view.
    solids = sorted(layout.solids, key=lambda s: (-round(float(s.outline[0] @ view), 1), s.top))
    parts = np.cumsum([len(s.outline) for s in solids])[:-1]
    outlines = np.concatenate([s.outline for s in solids])

    def corners(drift: NDArray[np.float64], heights: list[float]) -> list[NDArray[np.int32]]:
        """Return every outline, displaced in proportion to its height, in pixels."""
        height = np.repeat(heights, [len(s.outline) for s in solids])
        return np.split(canvas.pixels(outlines + height[:, None] * drift), parts)

    bases, tops = [s.base for s in solids], [s.top for s in solids]

    shade = np.zeros((canvas.height, canvas.width), np.uint8)
    for near, far in zip(corners(shadow, bases), corners(shadow, tops), strict=True):
        hull = cv2.convexHull(np.concatenate([near, far]))
        cv2.fillConvexPoly(shade, hull, 255, shift=SUBPIXEL_BITS)
    soft = cv2.blur(shade, (3, 3)).astype(np.float32)[..., None] / 255
    ground *= 1 - soft * (1 - SHADE)

    wall_light = 0.62 + 0.3 * float(sun @ -view)  # visible walls face the satellite
    for solid, foot, roof in zip(solids, corners(lean, bases), corners(lean, tops), strict=True):
        color = colors[solid.material] * np.float32(solid.tint)
        hull = cv2.convexHull(np.concatenate([foot, roof]))
        cv2.fillConvexPoly(ground, hull, (color * wall_light).tolist(), shift=SUBPIXEL_BITS)
        cv2.fillConvexPoly(ground, roof, color.tolist(), shift=SUBPIXEL_BITS)
        if solid.gable:
            across = solid.outline[3] - solid.outline[0]
            across = across / np.linalg.norm(across)
            for k, outward in ((0, -across), (2, across)):
                ridge = [(roof[1] + roof[2]) // 2, (roof[0] + roof[3]) // 2]
                half = np.array([roof[k], roof[k + 1], *(ridge if k == 0 else ridge[::-1])])
                slope = color * np.float32(0.86 + 0.24 * float(outward @ sun))
                cv2.fillConvexPoly(ground, half, slope.tolist(), shift=SUBPIXEL_BITS)
    return ground


def _clouds(scene: Scene, image: Floats) -> Floats:
    """Cover `cloud_cover` percent of the image with clouds, and add their shadows."""
    if scene.cloud_cover <= 0:
        return image
    flat = _Canvas(scene)
    flat.width, flat.height, flat.scale = scene.width, scene.height, 1 / scene.gsd

    def billows(shift: tuple[float, float]) -> Floats:
        rng = np.random.default_rng([*scene.visit, 3])
        cells = ((75, 1.0), (30, 0.45), (11, 0.2), (5, 0.09))
        return np.sum([a * flat.noise(rng, cell, shift) for cell, a in cells], axis=0)

    field = billows((0, 0))
    edge = np.quantile(field, 1 - min(scene.cloud_cover, 100) / 100)
    length = CLOUD_HEIGHT / np.tan(np.radians(max(scene.sun_elevation, 15.0)))
    east, north = length * _direction(scene.sun_azimuth)
    shade = np.clip((billows((east, north)) - edge) / 0.35 + 0.5, 0, 1)[..., None]
    alpha = np.clip((field - edge) / 0.35 + 0.5, 0, 1)[..., None]
    white = 226 + 14 * np.clip(field - edge, 0, 1.5)[..., None]
    return image * (1 - shade * (1 - SHADE)) * (1 - alpha) + white * alpha


def render(scene: Scene) -> Image:
    """Paint a scene.

    Returns:
        uint8 (height, width, 3), RGB; the same for equal scenes.

    Example:
        >>> from satmip_jax.sources.synthetic.render import Scene, render
        >>> render(Scene("stadium", place=(0, 1), visit=(0, 2))).shape
        (96, 96, 3)
    """
    canvas = _Canvas(scene)
    colors, bare, lush, green = _palette(scene)
    ground = np.ascontiguousarray(_ground(scene, canvas, bare, lush, green))
    layout = layout_of(scene.category, [*scene.place, 1])
    size = (scene.width, scene.height)
    drawn = _draw(scene, canvas, layout, ground, colors)
    image = np.asarray(cv2.resize(drawn, size, interpolation=cv2.INTER_AREA), np.float32)

    image *= 0.62 + 0.42 * float(np.sin(np.radians(scene.sun_elevation)))
    image = _clouds(scene, image)
    haze = 0.03 + 0.28 * (scene.off_nadir / 45) ** 2
    image = image * (1 - haze) + haze * np.array([150, 162, 180], np.float32)

    gain, contrast, blur = SENSORS[scene.sensor]
    image = ((image - 110) * contrast + 110) * np.array(gain, np.float32)
    if blur > 0:
        image = np.asarray(cv2.GaussianBlur(image, (5, 5), blur), np.float32)
    noise = np.random.default_rng([*scene.visit, 4]).standard_normal(image.shape, np.float32)
    return np.clip(np.rint(image + 2.5 * noise), 0, 255).astype(np.uint8)
