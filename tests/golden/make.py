"""Makes this folder's arrays: `python tests/golden/make.py FOLDER`, with the released code's whole outputs in FOLDER.

"released" is a part of what the authors' code computed. "rows" is what this project computes on the recipe's image in
float32 on a CPU; make it only from a state whose scores agree with the whole outputs (`python -m pytest
-m beside`: 4e-7 at the most).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from bench.verify import recipe
from bench.verify.goldens import LABEL_STEP, PIXEL_STEP, RUNS, SCORE_STEP, TOKEN_STEP, TOKENS, Bed, stored
from bench.verify.towers import BOUNDS

HERE = Path(__file__).resolve().parent


def released(folder: Path) -> dict[str, np.ndarray]:
    text, tokens, upsampled = (
        dict(np.load(folder / f"{name}.npz")) for name in ("a_text", "b_tokens_square", "c_upsample_square")
    )
    assert np.array_equal(tokens["sq/window_uint8"], recipe.image()[recipe.WINDOW])
    found = {f"text/{key}": text[key] for key in ("names", "query_idx", "query_features")}
    for name in ("after_ln_pre", "last_block_input"):
        found[f"tokens/{name}"] = tokens[f"sq/{name}"][::TOKEN_STEP]
    found["tokens/simfeatup_train_features"] = tokens["sq/simfeatup_train_features"][::TOKEN_STEP]
    for name in TOKENS:
        found[f"tokens/{name}/tokens"] = tokens[f"sq/{name}/tokens"][::TOKEN_STEP]
        if f"sq/{name}/cls" in tokens:
            found[f"tokens/{name}/cls"] = tokens[f"sq/{name}/cls"]
    found["upsample/tokens"] = tokens["sq/SegEarth/ir1/tokens"]
    for kind in ("jbu_one", "jbu_stack"):
        found[f"upsample/{kind}/out"] = upsampled[f"sq/{kind}/out_stride9"][:, :: PIXEL_STEP // 9, :: PIXEL_STEP // 9]
        found[f"upsample/{kind}/corner"] = upsampled[f"sq/{kind}/out_corner12"][:, :6, -6:]
        for name in ("out_stats", "spatial", "guidance_x2"):
            found[f"upsample/{kind}/{name}"] = upsampled[f"sq/{kind}/{name}"]
        found[f"upsample/{kind}/x2"] = upsampled[f"sq/{kind}/x2"][:, ::3, ::3]
        for name in ("kernel_range", "kernel_product_normalised", "kernel_final"):
            found[f"upsample/{kind}/{name}"] = upsampled[f"sq/{kind}/{name}_stride5"][:, ::3, ::3]
    metric = dict(np.load(folder / "e_metric.npz"))
    return found | {f"metric/{key}": value for key, value in metric.items()}


METHODS = (
    "clip_surgery",
    "scclip",
    "sfp",
    "dihclip",
    "pearl",
    "resclip",
    "maskclip_kspd",
    "itaclip",
    "floss",
    "cliptrase",
)
TOKENS_OF_WINDOW, TOKENS_OF_RECTANGLE = 9, 4  # every so many are kept


def methods(folder: Path) -> dict[str, np.ndarray]:
    """Of newer methods, on the window of the recipe's image and on 160 x 288 pixels of it."""
    found = {}
    for name in METHODS:
        whole = np.load(folder / f"{name}.npz")
        if "win/tokens" in whole.files:
            found[f"{name}/win"] = whole["win/tokens"][::TOKENS_OF_WINDOW]
        if "rectwin/tokens_stride3" in whole.files:
            found[f"{name}/rectwin"] = whole["rectwin/tokens_stride3"][::TOKENS_OF_RECTANGLE]
    for name, key in (
        ("clip_surgery", "text"),
        ("clip_surgery", "win/surgery"),
        ("maskclip_kspd", "win_kspd/output"),
        ("itaclip", "aux_words"),
        ("itaclip", "win_eng/scores_stride13"),
        ("floss", "templates"),
        ("floss", "win/fused_stride5"),
        ("cliptrase", "win/clusters"),
        ("cliptrase", "win/word"),
    ):
        found[f"{name}/{key}"] = np.load(folder / f"{name}.npz")[key]
    found["floss/win/fused_stride5"] = found["floss/win/fused_stride5"][:, ::3, ::3]
    return found


SECOND = (
    "proxyclip_synth448/dino8_224",
    "proxyclip_synth448/dinov2_224",
    "lposs_synth448/lposs",
    "lposs_small/lposs_plus",
    "trident_synth448/default",
)


def second(folder: Path) -> dict[str, np.ndarray]:
    """Of methods with a second model: scores at every 24th pixel, ConInfer's probabilities of every eighth patch."""
    found = {}
    for key in SECOND:
        file, run = key.split("/")
        found[key] = np.load(folder / f"{file}.npz")[f"{run}/preds_stride12"][:, ::2, ::2]
    mixture = np.load(folder / "coninfer_gmm.npz")
    return found | {f"coninfer/{heat}": mixture[f"posterior_temp{heat}"][::8] for heat in (50, 150)}


def upsamplers(folder: Path) -> dict[str, np.ndarray]:
    """Of NAF, AnyUp and JAFAR: pixel features of one window, which all three were given the same tokens of.

    LoftUp's are not in FOLDER: its released modules (MIT, github.com/andrehuang/loftup) were run on the weights of
    tests/second_recipe.py, and what is stored of it stays.
    """
    whole = {kind: np.load(folder / f"up_{kind}_synth.npz") for kind in ("naf", "anyup", "jafar")}
    found = {kind: arrays["out_stride16"][:, ::2, ::2] for kind, arrays in whole.items()}
    return found | {"features": whole["naf"]["features"], "loftup": np.load(HERE / "upsamplers.npz")["loftup"]}


TOWERS = ("sam3_", "radseg_", "vip_")


def towers(folder: Path) -> dict[str, np.ndarray]:
    """Of towers that are no CLIP: settings, labels, and every third of the values that FOLDER keeps."""
    found = {}
    for file in sorted(folder.glob("*.npz")):
        if file.name.startswith(TOWERS):
            for key, values in np.load(file).items():
                name, _, stride = key.partition("_stride")
                if stride and name in BOUNDS:
                    every = values[::3] if values.ndim == 2 else values[..., ::3, ::3]
                    found[f"{file.stem}/{name}_stride{3 * int(stride)}"] = every
                elif not stride and (key != "views" or file.stem == "sam3_tall"):
                    found[f"{file.stem}/{key}"] = values
    return found


def rows() -> dict[str, np.ndarray]:
    bed = Bed("cpu", "fp32")
    scores, counts = bed.outputs()
    found = {"classes": np.array(int(bed.classes.max()) + 1)}
    for run in RUNS:
        found[f"{run}/scores"] = scores[run][:, ::SCORE_STEP, ::SCORE_STEP]
        found[f"{run}/labels"] = bed.labels(scores[run])[::LABEL_STEP, ::LABEL_STEP]
        histogram = counts[run].ravel()
        keys = np.flatnonzero(histogram)
        found[f"{run}/keys"], found[f"{run}/counts"] = keys.astype(np.int32), histogram[keys].astype(np.int32)
    return found


if __name__ == "__main__":
    np.savez_compressed(HERE / "released.npz", **released(Path(sys.argv[1])))
    assert stored("released")
    np.savez_compressed(HERE / "rows.npz", **rows())
    np.savez_compressed(HERE / "methods.npz", **methods(Path(sys.argv[1]).parent / "golden-methods"))
    np.savez_compressed(HERE / "second.npz", **second(Path(sys.argv[1]).parent / "golden-second"))
    np.savez_compressed(HERE / "towers.npz", **towers(Path(sys.argv[1]).parent / "golden-towers"))
    np.savez_compressed(HERE / "upsamplers.npz", **upsamplers(Path(sys.argv[1]).parent / "golden-second"))
