"""Pixel-adaptive mask refinement (Araslanov and Roth, CVPR 2020, section 3.3): scores diffuse between like pixels.

Each pixel has 16 neighbours, eight at each of the distances 8 and 16, borders repeated. Their weights are a softmax
over the neighbours of −mean over RGB of |I − I_n| / (1e-8 + 0.1 σ), with σ the standard deviation of the 18 values
(the pixel twice). Ten times the scores of a pixel are replaced by the weighted sum of its neighbours'; its own are
not among them.

NACLIP's and ITACLIP's released code refine at the original size, guided by the enlarged network input:
`naclip+pamr-original`. At the network's size: `naclip+pamr`.
"""

import torch
import torch.nn.functional as F

from bench.api import refinement

DISTANCES = (8, 16)  # pixels
STEPS = 10
REACH = STEPS * max(DISTANCES)
STRIP = 512  # rows of an original image at a time
AROUND = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]


def neighbours(maps: torch.Tensor, distances: tuple[int, ...]) -> torch.Tensor:
    """(C, H, W) -> (8 · distances, C, H, W): the maps as each pixel's neighbours see them."""
    height, width = maps.shape[-2:]
    found = []
    for distance in distances:
        padded = F.pad(maps[None], (distance,) * 4, mode="replicate")[0]
        for dy, dx in AROUND:
            top, left = distance * (1 + dy), distance * (1 + dx)
            found.append(padded[:, top : top + height, left : left + width])
    return torch.stack(found)


def affinity(image: torch.Tensor, distances: tuple[int, ...] = DISTANCES) -> torch.Tensor:
    """Weights (16, 1, H, W) of the neighbours of each pixel of an image (3, H, W)."""
    around = neighbours(image, distances)  # (16, 3, H, W)
    own = image.expand(len(distances), *image.shape)
    deviation = torch.cat([around, own]).std(dim=0)  # (3, H, W)
    unlike = (around - image).abs() / (1e-8 + 0.1 * deviation)
    return (-unlike.mean(dim=1, keepdim=True)).softmax(dim=0)


def diffuse(
    image: torch.Tensor, scores: torch.Tensor, steps: int = STEPS, distances: tuple[int, ...] = DISTANCES
) -> torch.Tensor:
    """Scores (Q, H, W) after `steps` rounds over an image (3, H, W) of the same size."""
    weights = affinity(image, distances)
    for _ in range(steps):
        padded = [F.pad(scores[None], (d,) * 4, mode="replicate")[0] for d in distances]
        mixed = torch.zeros_like(scores)
        place = 0
        for distance, source in zip(distances, padded, strict=True):
            for dy, dx in AROUND:
                top, left = distance * (1 + dy), distance * (1 + dx)
                mixed += weights[place] * source[:, top : top + scores.shape[1], left : left + scores.shape[2]]
                place += 1
        scores = mixed
    return scores


@refinement("pamr", label="PAMR", reach=REACH)
def pamr(image: torch.Tensor, scores: torch.Tensor, text: torch.Tensor, steps: int = STEPS) -> torch.Tensor:
    return diffuse(image, scores, steps)


@refinement("pamr-original", label="PAMR, original size", at_original=True, reach=REACH)
def pamr_original(image: torch.Tensor, scores: torch.Tensor, text: torch.Tensor, steps: int = STEPS) -> torch.Tensor:
    """In strips that see as far as ten steps reach, so that memory follows the strip and not the image."""
    reach, height = steps * max(DISTANCES), scores.shape[1]
    refined = torch.empty_like(scores)
    for top in range(0, height, STRIP):
        bottom = min(top + STRIP, height)
        first, last = max(0, top - reach), min(height, bottom + reach)
        found = diffuse(image[:, first:last], scores[:, first:last], steps)
        refined[:, top:bottom] = found[:, top - first : bottom - first]
    return refined
