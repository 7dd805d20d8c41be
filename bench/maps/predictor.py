"""One method and its words, ready for own images."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.inference.segmenter import Segmenter
from bench.inference.visualize import PLAIN, Style
from bench.maps.job import make_maps, scored, strip_of
from bench.maps.plan import AskedScene, RowGroup, pass_over, plan_maps
from bench.maps.scene import DecodedImage, Scene, has_place, open_scene
from bench.maps.spec import MapSpec
from bench.maps.view import AS_IT_IS
from bench.models.collector import Box
from bench.models.text import Vocabulary
from bench.settings import Settings


class LabelMap(NamedTuple):
    """The classes of an image.

    labels: (H, W) uint8, numbers of classes; 255 where the image holds no data
    names: of the classes
    scores: (Q, h, w) float32 at the network's size
    """

    labels: NDArray[np.uint8]
    names: tuple[str, ...]
    scores: NDArray[np.float32]


class Predictor:
    """Label maps of own images by one method with one vocabulary; made by `bench.load_segmenter`.

    native: go through images at their own resolution, strip by strip, instead of resizing them; None: through
    georeferenced ones only. style: of overlays.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        settings: Settings,
        vocabulary: Vocabulary,
        native: bool | None = False,
        style: Style = PLAIN,
    ) -> None:
        self.segmenter = segmenter
        (self.row,) = segmenter.rows
        self.settings = settings
        self.vocabulary = vocabulary
        self.native = native
        self.style = style

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes: the first word of each."""
        return self.vocabulary.names

    def __call__(self, image: NDArray[np.uint8] | str | Path) -> LabelMap:
        """Return the label map of an RGB image (H, W, 3) uint8, or of a file: PNG, JPEG, TIFF, GeoTIFF.

        Raises BenchError for what is no such image, and where the method fails.
        """
        if isinstance(image, str | Path):
            with open_scene(Path(image)) as scene:
                return self._label_map(scene, has_place(Path(image)))
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise BenchError(f"image: {image.dtype} {image.shape}; give an RGB array (H, W, 3) of uint8, or a path")
        return self._label_map(DecodedImage(image))

    def write(self, source: Path, target: Path) -> None:
        """Segment an image file into a map, whose format its ending says, and an overlay beside it."""
        spec = MapSpec(native=self.native, format=target.suffix.lower().lstrip("."))
        rows = RowGroup([self.segmenter], {self.row.name: self.settings}, self.vocabulary)
        asked = AskedScene(source, target.with_suffix(""), AS_IT_IS)
        failures = make_maps(plan_maps([asked], rows, spec, self.style), spec)
        if failures:
            raise BenchError(failures[0])

    def _label_map(self, scene: Scene, georeferenced: bool = False) -> LabelMap:
        one = pass_over(self.segmenter, (scene.height, scene.width), self.native, georeferenced)
        boxes = [Box(top, 0, bottom, scene.width) for top, bottom in itertools.pairwise(one.edges)]
        found = [
            (strip_of(self.row, scores[self.row.name], box, scene).labels, scores[self.row.name].cpu().numpy())
            for box, scores in zip(boxes, scored(one, scene), strict=True)
        ]
        labels, scores = (np.concatenate(strips, axis=-2) for strips in zip(*found, strict=True))
        return LabelMap(labels, self.names, scores)
