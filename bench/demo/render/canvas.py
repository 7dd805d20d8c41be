"""A picture and its label map, painted together so that the labels are exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.demo.content import MASTER_INDEX
from bench.demo.render.textures import TEXTURES, Field

Points = NDArray[np.float64]  # (n, 2) x, y in pixels
Colour = Sequence[float] | NDArray[Any]  # red, green, blue on the 0..255 scale
_SUBPIXEL = 4  # bits of the fixed-point coordinates that OpenCV draws with


class SceneCanvas:
    """Image (H, W, 3) float32 on the 0..255 scale, label (H, W) uint8 master index, and what is taken (H, W).

    metre: pixels per metre; every drawn thing is measured in metres. sun: unit vector (x, y) of shadows.
    """

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], metre: float) -> None:
        self.rng = rng
        self.shape = shape
        self.metre = metre
        angle = rng.uniform(0, 2 * np.pi)
        self.sun = np.array([np.cos(angle), np.sin(angle)])
        self.shadow = rng.uniform(0.4, 0.75)
        self.image = np.zeros((*shape, 3), np.float32)
        self.label = np.zeros(shape, np.uint8)
        self.taken = np.zeros(shape, bool)
        self._textures: dict[str, Field] = {}

    def texture(self, name: str) -> Field:
        """Return the scene's texture of a material, (H, W, 3) float32; made once a scene."""
        if name not in self._textures:
            self._textures[name] = TEXTURES[name](self.rng, self.shape, self.metre)
        return self._textures[name]

    def cover(self, mask: NDArray[np.bool_], name: str, material: str | None = None) -> None:
        """Paint a class over a mask (H, W) with the texture of the same name, or of `material`."""
        np.copyto(self.image, self.texture(material or name), where=mask[..., None])
        self.label[mask] = MASTER_INDEX[name]

    def polygon(self, points: Points, colour: Colour | str, name: str | None = None) -> None:
        """Fill a polygon with a colour, or with the texture of that name.

        name: class that labels it; None leaves labels alone
        """
        window, mask = self._mask(points)
        if mask is None:
            return
        if isinstance(colour, str):
            paint = self.texture(colour)[window][mask]
        else:
            grain = self.rng.standard_normal((int(mask.sum()), 1)) * 5
            paint = (np.asarray(colour, np.float32) + grain).astype(np.float32)
        self.image[window][mask] = paint
        if name is not None:
            self.label[window][mask] = MASTER_INDEX[name]

    def shade(self, points: Points, factor: float) -> None:
        """Multiply the brightness inside a polygon."""
        window, mask = self._mask(points)
        if mask is not None:
            self.image[window][mask] *= np.float32(factor)

    def ribs(self, points: Points, heading: float, period: float, depth: float) -> None:
        """Add waves of `depth` grey levels, `period` pixels long, that run along `heading` (radians)."""
        window, mask = self._mask(points)
        if mask is None:
            return
        y, x = np.nonzero(mask)
        way = (x + window[1].start) * np.cos(heading) + (y + window[0].start) * np.sin(heading)
        self.image[window][mask] += (np.sin(way * (2 * np.pi / period)) * depth).astype(np.float32)[:, None]

    def cast_shadow(self, points: Points, height: float) -> None:
        """Darken the ground that a thing of this outline and height (metres) hides from the sun."""
        shifted = points + self.sun * height * self.metre
        hull = cv2.convexHull(np.concatenate([points, shifted]).astype(np.float32))
        self.shade(hull[:, 0].astype(np.float64), self.shadow)

    def line(self, points: Points, width: float, colour: Sequence[float] | float) -> None:
        """Paint a marking of the given width (pixels, at least one); labels stay."""
        cv2.polylines(
            self.image,
            [np.round(points * 2**_SUBPIXEL).astype(np.int32)],
            False,
            np.broadcast_to(np.asarray(colour, np.float64), 3).tolist(),
            max(1, round(width)),
            cv2.LINE_AA,
            _SUBPIXEL,
        )

    def claim(self, points: Points, ground: NDArray[np.bool_]) -> bool:
        """Reserve a polygon; False where it is built over, off the canvas or on wrong ground.

        ground: (256,) bool, the labels that it may stand on.
        """
        x, y = points.mean(0).astype(int)
        if not (0 <= x < self.shape[1] and 0 <= y < self.shape[0]) or self.taken[y, x] or not ground[self.label[y, x]]:
            return False
        window, mask = self._mask(points)
        if mask is None or self.taken[window][mask].any() or not ground[self.label[window][mask]].all():
            return False
        self.taken[window] |= mask
        return True

    def _mask(self, points: Points) -> tuple[tuple[slice, slice], NDArray[np.bool_] | None]:
        """Return the window that bounds a polygon, and its mask in there or None where nothing is visible."""
        height, width = self.shape
        x0, y0 = np.maximum(np.floor(points.min(0)).astype(int), 0)
        x1, y1 = np.minimum(np.ceil(points.max(0)).astype(int) + 1, (width, height))
        window = slice(y0, y1), slice(x0, x1)
        if x1 <= x0 or y1 <= y0:
            return window, None
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        corners = np.round((points - (x0, y0)) * 2**_SUBPIXEL).astype(np.int32)
        cv2.fillPoly(mask, [corners], 1, cv2.LINE_8, _SUBPIXEL)
        return window, mask.astype(bool)


def rectangle(centre: Points, length: float, width: float, angle: float) -> Points:
    """Corners (4, 2) of a rotated rectangle."""
    along, across = unit(angle) * length / 2, unit(angle + np.pi / 2) * width / 2
    return np.stack(
        [centre - along - across, centre + along - across, centre + along + across, centre - along + across]
    )


def ellipse(centre: Points, length: float, width: float, angle: float, corners: int = 24) -> Points:
    """Corners (n, 2) of a rotated ellipse."""
    turn = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    along, across = unit(angle) * length / 2, unit(angle + np.pi / 2) * width / 2
    return centre + np.cos(turn)[:, None] * along + np.sin(turn)[:, None] * across


def blob(rng: np.random.Generator, centre: Points, diameter: float) -> Points:
    """Corners of an irregular round outline, such as a crown."""
    turn = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    radius = diameter / 2 * rng.uniform(0.75, 1.15, 14)
    return centre + np.stack([np.cos(turn), np.sin(turn)], 1) * radius[:, None]


def unit(angle: float) -> NDArray[np.float64]:
    """Return the unit vector (x, y) of an angle in radians."""
    return np.array([np.cos(angle), np.sin(angle)])


def to_frame(centre: Points, angle: float, outline: Points) -> Points:
    """Move an outline drawn around the origin, heading along x, to a place and heading."""
    return centre + outline[:, :1] * unit(angle) + outline[:, 1:] * unit(angle + np.pi / 2)
