from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from data_helpers import pack, scene
from narrowed import present
from server_helpers import CONTENT, MD5, Server, running_server

from bench.cli import main
from bench.config import BackboneSpec, load_config
from bench.data.cards import Card, card_names, load_card
from bench.data.download import download_dataset, download_weights
from bench.data.fetch import md5_hash
from bench.data.schema import Download
from bench.demo.writers import write_dataset
from bench.errors import BenchError
from bench.paths import weights_dir


def fetched(spec: BackboneSpec) -> Path:
    """Where open_clip would put the weights."""
    return Path(f"{spec.model}.safetensors")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with running_server() as state:
        yield state


def loveda_on(server: Server, tmp_path: Path) -> Card:
    """LoveDA, whose Val.zip the local server holds: three generated images."""
    card = load_card("loveda")
    folder = write_dataset(card, tmp_path / "made", [scene(card, 48, 48, seed) for seed in range(3)])
    pack(folder, tmp_path / "Val.zip")
    server.files["/Val.zip"] = (tmp_path / "Val.zip").read_bytes()
    item = Download(file="Val.zip", url=f"{server.url}/Val.zip", md5=md5_hash(tmp_path / "Val.zip"))
    unneeded = Download(file="Train.zip", url=f"{server.url}/Train.zip", needed=False)
    return card.model_copy(update={"downloads": (item, unneeded), "expected_count": 3})


def test_a_dataset_with_an_address_is_downloaded_once(server: Server, tmp_path: Path) -> None:
    card = loveda_on(server, tmp_path)
    said: list[str] = []
    assert download_dataset(card, tmp_path / "data", said.append)
    assert said == [
        "LoveDA, licence: CC BY-NC-SA 4.0",
        f"{tmp_path / 'data' / 'LoveDA' / 'Val.zip'}: downloaded, checksum right",
    ]
    assert download_dataset(card, tmp_path / "data", said.append)
    assert "is in" in said[2] and "bench datasets check loveda" in said[2]
    assert [path for path, _ in server.requests] == ["/Val.zip"]


def test_an_unknown_checksum_is_said(server: Server, tmp_path: Path) -> None:
    card = load_card("loveda").model_copy(update={"downloads": (Download(file="a.bin", url=f"{server.url}/data.bin"),)})
    said: list[str] = []
    assert download_dataset(card, tmp_path, said.append)
    assert said[1].endswith(f"downloaded, no checksum is known; md5 {MD5}")


def test_a_page_of_images_is_fetched_file_by_file(server: Server, tmp_path: Path) -> None:
    server.files |= {
        "/sat/index.html": b"<a href='a.tiff'></a><a href='..%2fb.tiff'></a>",
        "/sat/a.tiff": b"a",
        "/sat/..%2fb.tiff": b"b",
    }
    item = Download(file="test/sat", url=f"{server.url}/sat/index.html", index=True)
    card = load_card("massachusetts_road").model_copy(update={"downloads": (item,)})
    said: list[str] = []
    assert download_dataset(card, tmp_path, said.append)
    folder = tmp_path / card.folders[0] / "test" / "sat"
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {"a.tiff": b"a", "b.tiff": b"b"}
    assert said[1:] == [f"{folder}: 2 files, 2 of them new; no checksums are known"]


def test_what_has_no_address_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = load_card("potsdam")
    assert main(["download", "potsdam", "--data-root", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    for expected in (card.obtain, *card.sources, str(tmp_path / "potsdam"), "5_Labels_all_noBoundary.zip"):
        assert expected in said
    assert "4_Ortho_RGBIR" not in said


def test_what_lies_there_already_needs_no_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "potsdam").mkdir()
    (tmp_path / "potsdam" / "2_Ortho_RGB.zip").write_bytes(b"PK")
    assert main(["download", "potsdam", "--data-root", str(tmp_path)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert "    5_Labels_all_noBoundary.zip" in said and "    2_Ortho_RGB.zip" not in said


def config_file(server: Server, folder: Path, **change: str) -> Path:
    """benchmark.yaml whose SimFeatUp checkpoint is on the local server."""
    config = load_config().model_dump(mode="json", exclude_unset=True)
    blob = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()
    for name, spec in config["upsamplers"].items():
        if name == "simfeatup":
            spec.update({"url": f"{server.url}/data.bin", "git_blob": blob, **change})
        else:
            spec.pop("url", None)
    (folder / "benchmark.yaml").write_text(yaml.safe_dump(config))
    return folder / "benchmark.yaml"


def test_weights(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_file(server, tmp_path)
    assert main(["download", "weights", "--config", str(config)]) == 0
    file = weights_dir() / present(load_config(config).upsamplers["simfeatup"].file)
    assert file.read_bytes() == CONTENT
    assert capsys.readouterr().out == f"{file}: downloaded, checksum right\n"
    assert main(["download", "weights", "simfeatup", "--config", str(config)]) == 0
    assert "was there already, checksum right" in capsys.readouterr().out
    file.unlink()
    wrong = config_file(server, tmp_path, git_blob="0" * 40)
    assert main(["download", "weights", "--config", str(wrong)]) == 2
    assert "wrong git blob hash" in capsys.readouterr().err and not file.exists()


def test_weights_of_second_models(server: Server, tmp_path: Path) -> None:
    said: list[str] = []
    config = load_config()
    dino = config.models["dino-vitb16"].model_copy(update={"url": f"{server.url}/data.bin"})
    config = config.model_copy(update={"models": {**config.models, "dino-vitb16": dino}})
    with pytest.raises(BenchError, match="what the server sent is no checkpoint"):  # .pth, but neither zip nor pickle
        download_weights(config, ["dino-vitb16"], said.append, fetched)
    assert said == ["dino-vitb16, licence: Apache-2.0"]
    right = dino.model_copy(update={"sha256": hashlib.sha256(CONTENT).hexdigest()})
    config = config.model_copy(update={"models": {**config.models, "dino-vitb16": right}})
    assert download_weights(config, ["dino-vitb16"], said.append, fetched)
    assert said[-1] == f"{weights_dir() / 'dino_vitbase16_pretrain.pth'}: downloaded, checksum right"
    (weights_dir() / "dino_vitbase16_pretrain.pth").unlink()
    assert not download_weights(config, ["dinov3-vitl16-sat"], said.append, fetched)
    assert "accept the licence (DINOv3 License) at https://huggingface.co/timm/vit_large" in said[-1]
    assert download_weights(config, ["bilinear"], said.append, fetched) and said[-1] == "bilinear: has no weights"


def test_weights_that_have_no_address(tmp_path: Path) -> None:
    said: list[str] = []
    config = load_config()
    unreleased = next(name for name, spec in config.upsamplers.items() if spec.file and not spec.url)
    assert not download_weights(config, [unreleased, "remoteclip-vit-b32", "clip-vit-b16"], said.append, fetched)
    assert "not released" in said[0] and str(weights_dir()) in said[0]
    assert "https://huggingface.co/chendelong/RemoteCLIP" in said[1]
    assert said[2] == "ViT-B-16-quickgelu.safetensors: is there"
    weights_dir().mkdir(parents=True, exist_ok=True)
    file = weights_dir() / str(config.backbones["remoteclip-vit-b32"].file)
    file.touch()
    assert download_weights(config, ["remoteclip-vit-b32"], said.append, fetched)
    file.unlink()
    with pytest.raises(BenchError, match="unknown weights 'simfeatupp'; did you mean simfeatup"):
        download_weights(config, ["simfeatupp"], said.append, fetched)


def test_addresses_in_the_cards_and_the_configuration_are_plain() -> None:
    """Whatever is fetched must have a fixed place below its folder."""
    for name in card_names():
        for item in load_card(name).downloads:
            assert not Path(item.file).is_absolute() and ".." not in Path(item.file).parts
            assert item.url is None or item.url.startswith(("https://", "http://"))
    for spec in load_config().upsamplers.values():
        assert spec.url is None or spec.url.startswith("https://")
        assert spec.git_blob is None or spec.url
    for second in load_config().models.values():
        assert second.url is not None and second.url.startswith("https://")
        assert second.license
