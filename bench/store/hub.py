"""Archives of results in a dataset repository of Hugging Face. The token is where `hf auth login` puts it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from bench.errors import BenchError
from bench.runtime.hub import answers

FOLDER = "ovss-bench"  # of the repository, for archives
_CLIENTS = ("httpx", "httpx2")  # of huggingface_hub, by release; errors of its earlier ones are OSErrors
Result = TypeVar("Result")


def push(file: Path, repository: str, name: str, private: bool = False) -> str:
    """Upload an archive as `ovss-bench/NAME.zip` and return its address; a missing repository is made.

    Raises BenchError where the token, the right to write or the network is missing.
    """
    from huggingface_hub import HfApi

    place, api = f"{FOLDER}/{name}.zip", HfApi()

    def upload() -> str:
        api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        api.upload_file(
            path_or_fileobj=str(file),
            path_in_repo=place,
            repo_id=repository,
            repo_type="dataset",
            commit_message=f"Results of ovss-bench: {name}",
        )
        return f"{api.endpoint}/datasets/{repository}/blob/main/{place}"

    return _answered(repository, upload)


def pull(repository: str, name: str | None = None, revision: str | None = None) -> list[Path]:
    """Download the archives of a repository, or the one called `name`, into the cache of Hugging Face.

    Raises BenchError for a repository, revision or archive that is not there, and where the network is missing.
    """
    from huggingface_hub import HfApi, hf_hub_download

    def download() -> list[Path]:
        files = HfApi().list_repo_files(repository, repo_type="dataset", revision=revision)
        archives = sorted(file for file in files if file.startswith(f"{FOLDER}/") and file.endswith(".zip"))
        wanted = [file for file in archives if name is None or file == f"{FOLDER}/{name}.zip"]
        if not wanted:
            there = ", ".join(Path(file).stem for file in archives) or "none"
            raise BenchError(f"{repository}: has no archive {name or f'in {FOLDER}/'}; there are: {there}")
        return [Path(hf_hub_download(repository, file, repo_type="dataset", revision=revision)) for file in wanted]

    return _answered(repository, download)


def _answered(repository: str, ask: Callable[[], Result]) -> Result:
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    if not answers(constants.ENDPOINT):  # asked, the client would try for half a minute
        raise BenchError(f"{repository}: Hugging Face cannot be reached at {constants.ENDPOINT}; try again later")
    try:
        return ask()
    except HFValidationError as error:
        raise BenchError(f"{repository}: not a name of a repository, as in OWNER/NAME ({_line(error)})") from None
    except LocalTokenNotFoundError:
        raise BenchError(f"{repository}: no token of Hugging Face; run `hf auth login`, or set HF_TOKEN") from None
    except Exception as error:
        code = getattr(error.response, "status_code", None) if isinstance(error, HfHubHTTPError) else None
        if code is not None:
            advice = {
                401: "run `hf auth login`, or set HF_TOKEN",
                403: "the token may not do that; make one that may write",
                404: "check owner, name and revision, and whether the token may see it",
            }.get(code, "try again later")
            raise BenchError(f"{repository}: Hugging Face answers {code}; {advice}") from None
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in _CLIENTS:
            raise
        raise BenchError(f"{repository}: Hugging Face cannot be reached ({_line(error)}); try again later") from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
