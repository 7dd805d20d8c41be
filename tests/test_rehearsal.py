"""The first real run, rehearsed without a network: every download from a local server, from an empty home."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator

import pytest
from data_helpers import scene
from rehearsal_helpers import REPOSITORY, Rehearsal
from server_helpers import running_server

from bench.data.cards import load_card
from bench.demo.writers import write_dataset

pytestmark = pytest.mark.slow
OFFERED = dict.fromkeys(("udd5", "openearthmap", "whu_aerial", "loveda", "whu_sat_ii"), "original") | {
    "massachusetts_road": "official"
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    with running_server() as server:
        rehearsal = Rehearsal(tmp_path_factory.mktemp("rehearsal"), server)
        for name, layout in OFFERED.items():
            rehearsal.offer(name, layout)
        yield rehearsal


def test_an_empty_machine_is_told_what_it_lacks(made: Rehearsal) -> None:
    code, said = made.bench("doctor", "--quick")
    assert code == 1 and "table 1 lacks 10:" in said and f"{made.server.url} answers; no token" in said
    assert "next: python -m bench download weights clip-vit-b16 simfeatup" in said
    code, said = made.bench("run", "--table", "1", "--dry-run")
    assert code == 1 and "weights clip-vit-b16 are missing" in said and "8 of 8 datasets have no data" in said
    assert "with all weights and data about" in said and "nothing to do" not in said


def test_downloads_meet_what_servers_do(made: Rehearsal) -> None:
    """Answers that break off are resumed; a page in place of a file and a missing one are said in one line."""
    server = made.server
    server.breaks = 20_000
    code, said = made.bench("download", "loveda", home="other", OVSS_BENCH_DATA=str(made.folder / "elsewhere"))
    server.breaks = None
    assert code == 0 and "checksum right" in said
    whu = next(path for path in server.files if path.startswith("/gpcv") and "aerial" in path)
    kept, server.files[whu] = server.files[whu], b"<html>Come back later</html>"
    code, said = made.bench("download", "whu_aerial", home="other", OVSS_BENCH_DATA=str(made.folder / "elsewhere"))
    assert code == 2 and "it was deleted" in said and "Traceback" not in said
    del server.files[whu]
    code, said = made.bench("download", "whu_aerial", home="other", OVSS_BENCH_DATA=str(made.folder / "elsewhere"))
    assert code == 2 and "404 Not Found; get whu_aerial.zip by hand" in said
    server.files[whu] = kept


def test_behind_a_proxy(made: Rehearsal) -> None:
    """The clone's card has the address of the server; the proxy is asked for the real one, which nobody can reach."""
    file = made.clone / "datasets" / "whu_sat_ii.yaml"
    ours = file.read_text()
    file.write_text(ours.replace(f"{made.server.url}/gpcv.whu.edu.cn", "http://gpcv.whu.edu.cn"))
    place = {"OVSS_BENCH_DATA": str(made.folder / "proxied"), "http_proxy": made.server.url}
    code, said = made.bench("download", "whu_sat_ii", home="other", **place)
    assert code == 0 and "checksum right" in said
    code, said = made.bench(
        "download", "weights", "clip-vit-b16", home="proxied", **place, HF_ENDPOINT="http://hf.example"
    )
    assert code == 2 and "neither cached nor can they be downloaded" in said and "Traceback" not in said
    file.write_text(ours)


def test_a_closed_file_asks_for_a_token(made: Rehearsal) -> None:
    path = "/haiwen/loftup-clip/resolve/main/pytorch_model.bin"
    made.server.files[path], made.server.tokens[path] = b"weights", "hf_right"
    code, said = made.bench("download", "weights", "loftup")
    assert code == 2 and "401" in said and "accept its terms there, then run `hf auth login` or set HF_TOKEN" in said
    code, said = made.bench("download", "weights", "loftup", HF_TOKEN="hf_other")
    assert code == 2 and "403" in said and "accept its terms there with the account of your token" in said
    code, said = made.bench("download", "weights", "loftup", HF_TOKEN="hf_right")
    assert code == 0 and "downloaded" in said


def test_from_nothing_to_a_report(made: Rehearsal) -> None:
    """Water is to be got by hand: the run goes on without it, and names it."""
    code, said = made.bench("reproduce", "--until", "kinds", "--workers", "0", "--data-root", str(made.data))
    assert "Traceback" not in said and code == 1, said
    assert any(path == REPOSITORY for path, _ in made.server.requests)
    assert "wbs_si: to be got by hand (registration)" in said
    assert "segearth-ov  udd5" in said and "off by" in said  # random weights
    assert "not the published preparation" in said  # Massachusetts' official test set
    with zipfile.ZipFile(made.folder / "home" / "reproduction.zip") as archive:
        facts = json.loads(archive.read("report.json"))
        assert str(made.folder / "home") not in archive.read("report.md").decode()
    assert len(facts["cells"]) == 19 and "udd5" in facts["check"] and "wbs_si" not in facts["check"]
    assert all(one["good"] for one in facts["verify"])
    code, said = made.bench("doctor", "--quick")
    assert code == 1 and "weights clip" not in said.partition("lacks")[2]


def test_offline_with_a_filled_cache(made: Rehearsal) -> None:
    """After the guided run: another command finds its weights and data where the first one put them."""
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    code, said = made.bench("run", "--methods", "clip", "--datasets", "udd5", "--results", "offline", **nobody)
    assert code == 0 and "2 of 2 images" in said, said


def test_offline_with_nothing(made: Rehearsal) -> None:
    card = load_card("udd5")
    write_dataset(card, made.folder / "by_hand", [scene(card, 64, 72, number) for number in range(2)])
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:9", "OVSS_BENCH_DATA": str(made.folder / "by_hand")}
    code, said = made.bench("run", "--methods", "clip", "--datasets", "udd5", "--dry-run", home="empty", **nobody)
    assert code == 1 and "put it into" in said and "ViT-B-16.pt" in said and "weights clip-vit-b16 are missing" in said


def test_openais_own_file_will_do(made: Rehearsal) -> None:
    made.openai_file(made.folder / "openai" / "cache" / "weights" / "ViT-B-16.pt")
    assert made.bench("download", "udd5")[0] == 0
    asked = ["run", "--methods", "clip", "--datasets", "udd5", "--workers", "0"]
    code, said = made.bench(*asked, home="openai", HF_ENDPOINT="http://127.0.0.1:9")
    assert code == 0 and "2 of 2 images" in said, said


def test_a_fine_tuned_checkpoint_is_read(made: Rehearsal) -> None:
    """As RemoteCLIP's: a torch file of open_clip's names, half of them in half precision."""
    import torch

    file = made.folder / "RemoteCLIP-ViT-B-16.pt"
    torch.save({name: value.half() if "visual" in name else value for name, value in made.state.items()}, file)
    assert made.bench("download", "udd5")[0] == 0
    asked = ["run", "--methods", "clip", "--datasets", "udd5", "--workers", "0", "--results", "tuned"]
    code, said = made.bench(*asked, "--checkpoint", str(file))
    assert code == 0 and "2 of 2 images" in said, said
