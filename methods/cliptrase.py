"""CLIPtrase (Shao et al., ECCV 2024): self-correlation in the last block, and clusters of patches that take one word.

Last block: softmax(qqᵀ/√d) + softmax(kkᵀ/√d) + softmax(vvᵀ/√d), residual and FFN kept. Clusters (`clusters: true`):
the cosines of q, k and v of the last block but one, averaged over heads and the three, less those with CLS, negative
ones 0; DBSCAN on the rows. A cluster's map is the mean of its rows, enlarged, median-filtered; each pixel belongs to
the cluster with the highest map, and each cluster takes the commonest word of its pixels.

Released code: whole images of 224 or 336 pixels, no windows, no threshold; with a single cluster the whole image gets
one word. Here clusters are found in each window and give scores of 0 and 1; by default there are none.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from bench.api import Trunk, attention, cosine, last_block, method

ENLARGED, MEDIAN = 4, 7


@method("cliptrase", label="CLIPtrase", venue="ECCV'24")
class ClipTrase:
    def __init__(self, clusters: bool = False, eps: float = 0.7, members: int = 3) -> None:
        self.clusters = clusters
        self.eps = eps
        self.members = members

    def scores(self, trunk: Trunk, text: torch.Tensor) -> torch.Tensor:
        def mix(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return (attention(q, q) + attention(k, k) + attention(v, v)) @ v

        scores = cosine(trunk, last_block(trunk, mix, residual=True, ffn=True).patches, text)
        if not self.clusters:
            return scores
        scores = F.interpolate(scores, size=trunk.images.shape[2:], mode="bilinear")
        words = scores.argmax(dim=1)  # (B, H, W)
        voted = [self._vote(of, word) for of, word in zip(correlation(trunk), words, strict=True)]
        return F.one_hot(torch.stack(voted), len(text)).movedim(3, 1).to(scores.dtype)

    def _vote(self, correlation: torch.Tensor, word: torch.Tensor) -> torch.Tensor:
        """Return the word map (H, W) of one window after its clusters (maps h, w, N) have voted."""
        h, w = correlation.shape[:2]
        rows = correlation.flatten(0, 1)  # (N, N)
        cluster = dbscan(rows.double().cpu().numpy(), self.eps, self.members)
        if cluster.max() < 0:
            return word
        maps = torch.stack([rows[torch.from_numpy(cluster == c)].mean(dim=0) for c in range(cluster.max() + 1)])
        large = F.interpolate(maps.view(1, -1, h, w), scale_factor=ENLARGED, mode="bilinear")[0]
        smooth = median_filter(large.cpu().numpy(), size=(1, MEDIAN, MEDIAN), mode="reflect")
        at_pixels = F.interpolate(torch.from_numpy(smooth)[None], size=word.shape, mode="bilinear")[0].argmax(dim=0)
        voted = word.clone()
        for number in range(len(maps)):
            mine = (at_pixels == number).to(word.device)
            if mine.any():
                voted[mine] = word[mine].bincount().argmax()
        return voted


def correlation(trunk: Trunk) -> torch.Tensor:
    """(B, h, w, N): how alike patches are in the last block but one, less what they share with CLS."""
    unit = [F.normalize(part, dim=-1) for part in trunk.qkv(-2)]
    alike = torch.stack([(part @ part.mT).mean(dim=1) for part in unit]).mean(dim=0)  # (B, 1 + N, 1 + N)
    return (alike[:, 1:, 1:] - alike[:, :1, 1:]).clamp(min=0).unflatten(1, trunk.grid)


def dbscan(points: NDArray[np.float64], eps: float, members: int) -> NDArray[np.int64]:
    """Cluster of each point (N, D), -1 for none (Ester et al. 1996); `members` within eps make a core point."""
    near = cdist(points, points) <= eps
    core = near.sum(axis=1) >= members
    _, component = connected_components(csr_matrix(near & core[:, None] & core[None]), directed=False)
    numbers = {number: place for place, number in enumerate(dict.fromkeys(component[core].tolist()))}
    cluster = np.full(len(points), -1)
    for index in range(len(points)):
        mine = component[near[index] & core]
        if core[index]:
            cluster[index] = numbers[component[index]]
        elif len(mine):
            cluster[index] = min(numbers[number] for number in mine.tolist())
    return cluster
