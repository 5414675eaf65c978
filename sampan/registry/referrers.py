"""What refers to a manifest: signatures, SBOMs, whatever names it as its `subject` (distribution-spec v1.1).

A registry lists them ("Listing Referrers"); where it cannot, those who push keep an index of them under a tag that is
made of the digest ("Referrers Tag Schema").
"""

from __future__ import annotations

from sampan.errors import IntegrityError, NotFound, NotSupported, Unavailable
from sampan.oci import digest as digests
from sampan.oci import image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.registry.client import Repository

# 404 by the specification; 400 and 405 are what some registries say of addresses that they do not know.
_NO_API = (400, 404, 405)
_TRIES = 5
MOST = 10_000


def ls(repository: Repository, digest: str, artifact_type: str = "") -> list[dict[str, Any]]:
    """List the descriptors of what has `digest` as its subject, of one `artifact_type` where one is given."""
    from urllib.parse import quote

    digests.validate(digest)
    action = f"list the referrers of {repository}@{digest}"
    filtered = f"?artifactType={quote(artifact_type, safe='')}" if artifact_type else ""
    address = f"/v2/{repository.path}/referrers/{digest}{filtered}"
    found = []
    try:
        for entry in repository.registry.pages(address, "manifests", repository.pull_scope, action, _NO_API):
            found.append(image.check_descriptor(entry, f"referrer of {digest}"))
            if len(found) > MOST:
                raise IntegrityError(f"cannot {action}: there are more than {MOST}")
    except NotSupported:
        found = _tagged(repository, digest)
    # A registry may leave the filter out ("OCI-Filters-Applied").
    return [entry for entry in found if artifact_type in ("", entry.get("artifactType", ""))]


def _tag(digest: str) -> str:
    """Give the tag that stands for the referrers of a digest: at most 32 and 64 characters of its two parts."""
    algorithm, _, encoded = digest.partition(":")
    return f"{algorithm[:32]}-{encoded[:64]}"


def is_tag(tag: str) -> bool:
    """Tell whether a tag stands for the referrers of a digest: no image is behind it."""
    return digests.is_valid(tag.replace("-", ":", 1))


def _tagged(repository: Repository, digest: str) -> list[dict[str, Any]]:
    try:
        found = repository.manifest(_tag(digest))
    except NotFound:
        return []
    if found.media_type not in image.INDEXES:
        raise IntegrityError(f"cannot list the referrers of {digest}: {repository}:{_tag(digest)} is no index of them")
    return list(found.document["manifests"])


def remember(repository: Repository, data: bytes, media_type: str) -> None:
    """Enter a pushed manifest into the referrers tag of its subject, if it has one."""
    document = image.parse(data, media_type)
    if not document.get("subject"):
        return
    entry = image.as_referrer(document, digests.of(data), len(data))
    subject = document["subject"]["digest"]
    for _ in range(_TRIES):  # somebody else may write the tag at the same moment: then one of the two is lost
        there = _tagged(repository, subject)
        if any(one["digest"] == entry["digest"] for one in there):
            return
        repository.put_manifest(_tag(subject), image.build_index([*there, entry]), image.OCI_INDEX)
    raise Unavailable(
        f"cannot enter {entry['digest']} as a referrer of {subject}: somebody else keeps writing {_tag(subject)}",
        "push it again",
    )
