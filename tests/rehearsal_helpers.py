"""What a first run finds on the network, on a local server: weights in their released formats, datasets, pages."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import open_clip
import torch
import yaml
from data_helpers import pack, scene
from safetensors.torch import save_file
from server_helpers import Server

from bench.data.cards import load_card
from bench.data.fetch import md5_hash
from bench.data.prepared import find_samples
from bench.demo.writers import write_dataset
from bench.models.upsamplers import JBUOne

ROOT = Path(__file__).resolve().parents[1]
MODEL = "ViT-B-16-quickgelu"
REPOSITORY = "/timm/vit_base_patch16_clip_224.openai/resolve/main/open_clip_model.safetensors"
PARTS = ("bench", "methods", "datasets", "results/published", "results/demo", "tests/golden", "benchmark.yaml")
ADDRESS = re.compile(r"https?://([\w.-]+)/")


class Rehearsal:
    """A clone of the project whose addresses lead to the local server, and an empty home beside it.

    The clone differs in addresses, checksums and numbers of images, and in a geometry that is quick on a CPU.
    """

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server = folder, server
        self.clone, self.data = folder / "clone", folder / "data"
        for part in PARTS:
            source, target = ROOT / part, self.clone / part
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        config = self._here((self.clone / "benchmark.yaml").read_text())
        content = yaml.safe_load(config)
        content["protocol"] |= {"resize": {"long_side": 112}, "window": 112, "stride": 112, "templates": "photo"}
        content["upsamplers"]["simfeatup"]["git_blob"] = self._upsampler(content["upsamplers"]["simfeatup"]["url"])
        (self.clone / "benchmark.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        for card in (self.clone / "datasets").glob("*.yaml"):
            card.write_text(self._here(card.read_text()))
        self._weights()

    def _here(self, text: str) -> str:
        """Lead each address but those of the hub, which $HF_ENDPOINT leads here, to the server."""
        keep = "https://huggingface.co/"
        return ADDRESS.sub(lambda m: m[0] if m[0] == keep else f"{self.server.url}/{m[1]}/", text)

    def _weights(self) -> None:
        """Put CLIP on the hub, as safetensors behind a redirect to the storage, which is another host."""
        torch.manual_seed(0)
        model = open_clip.create_model(MODEL, pretrained=None, load_weights=False)
        self.state = {name: value.contiguous() for name, value in model.state_dict().items()}
        file = self.folder / "open_clip_model.safetensors"
        save_file(self.state, file)
        self.server.files["/storage/clip"] = file
        self.server.redirects[REPOSITORY] = self.server.url.replace("127.0.0.1", "localhost") + "/storage/clip"
        self.server.hub.add(REPOSITORY)

    def _upsampler(self, url: str) -> str:
        """Put SimFeatUp behind GitHub's redirect, as a checkpoint of Lightning; return its git hash."""
        file = self.folder / "simfeatup.ckpt"
        state = {f"upsampler.{name}": value for name, value in JBUOne(512).state_dict().items()}
        torch.save({"state_dict": state, "hyper_parameters": {"lr": 1e-3}}, file)
        self.server.files["/raw/simfeatup.ckpt"] = content = file.read_bytes()
        self.server.redirects[url.removeprefix(self.server.url)] = f"{self.server.url}/raw/simfeatup.ckpt"
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def openai_file(self, target: Path) -> None:
        """Write CLIP as OpenAI's TorchScript archive, in half precision, with its three scalars."""
        root = _Node()
        for name, value in self.state.items():
            *parents, last = name.split(".")
            node = root
            for part in parents:
                if not hasattr(node, part):
                    node.add_module(part, _Node())
                node = getattr(node, part)
            node.register_parameter(last, torch.nn.Parameter(value.half(), requires_grad=False))
        for name, number in {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}.items():
            root.register_buffer(name, torch.tensor(number))
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.jit.save(torch.jit.script(root), str(target))

    def offer(self, name: str, layout: str = "original", images: int = 2, side: int = 64) -> None:
        """Put a dataset on the server, in the layout and under the addresses of its card."""
        card, made = load_card(name), self.folder / "made" / name
        scenes = [scene(card, side + 8 * number, side, number) for number in range(images)]
        folder = write_dataset(card, made, scenes, layout)
        self._expect(name, len(find_samples(card, made, layout)), [path.stem for path in folder.rglob("*")])
        file = self.clone / "datasets" / f"{name}.yaml"
        content = yaml.safe_load(file.read_text())
        for item in content.get("downloads", ()):
            path = str(item.get("url", "")).removeprefix(self.server.url)
            if item.get("index"):
                self._page(path, folder / item["file"])
            elif path and item.get("needed", True):
                archive = self.folder / "archives" / name / item["file"]
                pack(folder, archive)
                self.server.files[path] = archive
                item["md5"] = md5_hash(archive)
        file.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))

    def _page(self, path: str, folder: Path) -> None:
        links = [file.name for file in sorted(folder.iterdir())]
        self.server.files[path] = "".join(f"<a href='{link}'>{link}</a>" for link in links).encode()
        for link in links:
            self.server.files[f"{path.rpartition('/')[0]}/{link}"] = (folder / link).read_bytes()

    def _expect(self, name: str, count: int, stems: list[str]) -> None:
        """Let the clone's card expect these images, and its list of names name no others."""
        file = self.clone / "datasets" / f"{name}.yaml"
        content = yaml.safe_load(file.read_text())
        content["expected_count"] = count
        if names := (content.get("split") or {}).get("file"):
            listed = self.clone / "datasets" / names
            lines = [line for line in listed.read_text().splitlines() if line.strip() in stems]
            listed.write_text("\n".join(lines) + "\n")
        file.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))

    def bench(self, *arguments: str, home: str = "home", **variables: str) -> tuple[int, str]:
        """Run a command in the clone with its own home; return its exit code and all that it printed."""
        place = self.folder / home
        place.mkdir(exist_ok=True)
        known = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "PYTHONPATH": str(self.clone), "LANG": "C.UTF-8"}
        homes = {"HOME": place, "OVSS_BENCH_CACHE": place / "cache", "HF_HOME": place / "hf"}
        homes["OVSS_BENCH_DATA"] = self.data
        hub = {"HF_ENDPOINT": self.server.url, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "bench", *arguments],
            cwd=place,
            env=known | {name: str(path) for name, path in homes.items()} | hub | variables,
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


class _Node(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        return x
