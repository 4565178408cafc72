"""Downloads published weights from the Hugging Face Hub with its own library.

The cache, the progress bar and the variables `HF_HOME`, `HF_TOKEN`, `HF_ENDPOINT` and
`HF_HUB_OFFLINE` are those of the library, which is imported on first use.
"""

import contextlib
import logging as std_logging
import os
import pathlib
import re

from absl import logging

from input_pipeline.errors import DataError, UsageError
from input_pipeline.text import summarize_error
from loops.config.hub_names import HubName

WEIGHTS, CARD = "model.safetensors", "config.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")


def download(where: str, name: HubName, file: str) -> pathlib.Path | None:
    """Returns the path of a file of a repository in the cache, which downloads it if needed.

    The folder of the path has the name of the commit.

    Args:
      where: flag and value, for messages.
      name: the repository.
      file: name of the file.

    Returns:
      the path, or None if the repository has no such file.

    Raises:
      UsageError: there is no such repository, or it is not accessible.
    """
    # In this order: the library sets the level of its logger when its functions are imported.
    from huggingface_hub import constants, errors, hf_hub_download
    from huggingface_hub.utils import logging as hub_logging

    # The log gets one line, not several for each request and each retry.
    std_logging.getLogger("httpx2").setLevel(std_logging.WARNING)
    if "HF_HUB_VERBOSITY" not in os.environ:
        hub_logging.set_verbosity_error()
    endpoint = constants.ENDPOINT
    page = f"{endpoint}/{name.repository}"
    logging.info("looking for %s of %s in the cache and at %s", file, name, endpoint)
    try:
        return pathlib.Path(hf_hub_download(name.repository, file, revision=name.revision))
    except errors.RemoteEntryNotFoundError:
        return None
    except errors.GatedRepoError:
        reason = f"is gated: accept its terms at {page}, then run hf auth login or set HF_TOKEN"
    except errors.RepositoryNotFoundError:
        reason = _describe_missing(name, endpoint)
    except errors.RevisionNotFoundError:
        reason = f"{page} has no revision {name.revision}; leave @{name.revision} out"
    except errors.LocalEntryNotFoundError as error:
        reason = _describe_unreachable(error.__cause__, endpoint)
    except errors.HTTPError as error:
        is_unauthorized = getattr(getattr(error, "response", None), "status_code", 0) == 401
        reason = f"{page} cannot be downloaded ({summarize_error(error)}); try again"
        if is_unauthorized:  # the hub's answer to a name that does not exist
            reason = _describe_missing(name, endpoint)
    except errors.HFValidationError:
        reason = "is not a name on the hub, as in hf_hub:OWNER/NAME"
    except OSError as error:
        reason = (
            f"{file} cannot be downloaded to {constants.HF_HUB_CACHE} ({summarize_error(error)});"
            " try again"
        )
    raise UsageError(f"{where}: {reason}")


def _describe_missing(name: HubName, endpoint: str) -> str:
    """Returns that a repository was not found, and what to do."""
    owner = name.repository.partition("/")[0]
    return (
        f"{endpoint} has no such repository, or it is private: look for the name at"
        f" {endpoint}/{owner}, or set HF_TOKEN"
    )


def _describe_unreachable(cause: BaseException | None, endpoint: str) -> str:
    """Returns why a file that is not in the cache cannot be downloaded, and what to do."""
    from huggingface_hub import errors

    if isinstance(cause, errors.OfflineModeIsEnabled):
        return (
            "is not in the cache, and HF_HUB_OFFLINE forbids a download; unset it, or copy the"
            " cache (HF_HOME) from another machine"
        )
    if isinstance(cause, errors.FileMetadataError):
        return f"{endpoint} does not answer like the hub; check HF_ENDPOINT, proxy and login page"
    reason = summarize_error(cause) if cause else "no answer"
    return (
        f"is not in the cache, and {endpoint} cannot be reached ({reason}); check the network, or"
        f" copy {WEIGHTS} and {CARD} to a folder and import it with --mode=import --weights=FOLDER"
    )


def verify_hash(where: str, path: pathlib.Path, sha256: str) -> bool:
    """Compares a file with the hash that the hub announced; removes a file that differs.

    The library names its copy of a large file after the hash, and does not check it.

    Args:
      where: flag and value, for the message.
      path: what `download` returned.
      sha256: hash of the file's bytes.

    Returns:
      whether the hub announced a hash, as it does for large files.

    Raises:
      DataError: the file is damaged.
    """
    copy = pathlib.Path(os.path.realpath(path))
    if not _SHA256.fullmatch(copy.name):
        return False
    if copy.name == sha256:
        return True
    for damaged in {path, copy}:
        with contextlib.suppress(OSError):
            damaged.unlink()
    raise DataError(
        f"{where}: the downloaded {path.name} has sha256 {sha256}, but the hub announced"
        f" {copy.name}; it was removed from the cache, so try again"
    )
