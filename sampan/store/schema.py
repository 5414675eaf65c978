"""The tables of the store's database, as a tree; JSON columns are UTF-8 text written by oci/jsontext.

    images               one row per manifest
      manifest_digest    TEXT  primary key; media_type and manifest_size complete its descriptor
      id                 TEXT  digest of the config: the image's id, the same for all compressions of its layers
      config             JSON  the config blob, so that a run reads no blob
      diff_ids           JSON  list
      blobs              JSON  list of digests: manifest, config, layers
      size, created      unpacked bytes, unix nanoseconds
      └─ image_references    name (full reference) -> manifest_digest, tagged (unix ns)
    snapshots            id (number, never reused), diff_id UNIQUE, size, created, boot_id
                         (boot_id is "" once the files are durable; else the row counts during that boot only)
    containers           one row per container: what was asked for, and the state that the engine records
      id, name UNIQUE, image_id, image_reference, created, config JSON, auto_remove, labels JSON
      status, pid, pid_start, boot_id, exit_code, oom, started, finished
      └─ container_volumes   container_id, name
    volumes              name, created, anonymous, labels JSON
    build_cache          key, result JSON, diff_ids JSON, created, used
    manifest_lists       name, entries JSON (descriptors), created: indexes that are being put together
    leases               id, owner (store/owner.py), boot_id, expires (CLOCK_BOOTTIME seconds), purpose
      └─ lease_items         lease_id, digest

Rules: a version is never edited once released, a change is a new entry of MIGRATIONS; a store of a newer version is
refused.
"""

from __future__ import annotations

APPLICATION_ID = 0x53414D50  # "SAMP": tells the file from any other SQLite database

_VERSION_1 = """
CREATE TABLE images (
    manifest_digest TEXT PRIMARY KEY,
    media_type TEXT NOT NULL,
    manifest_size INTEGER NOT NULL,
    id TEXT NOT NULL,
    config BLOB NOT NULL,
    diff_ids BLOB NOT NULL,
    blobs BLOB NOT NULL,
    size INTEGER NOT NULL,
    created INTEGER NOT NULL
);
CREATE INDEX images_by_id ON images (id);
CREATE TABLE image_references (
    name TEXT PRIMARY KEY,
    manifest_digest TEXT NOT NULL REFERENCES images ON DELETE CASCADE,
    tagged INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX image_references_by_manifest ON image_references (manifest_digest);
CREATE TABLE snapshots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    diff_id TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    created INTEGER NOT NULL,
    boot_id TEXT NOT NULL
);
CREATE TABLE containers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    image_id TEXT NOT NULL,
    image_reference TEXT NOT NULL,
    created INTEGER NOT NULL,
    config BLOB NOT NULL,
    auto_remove INTEGER NOT NULL,
    labels BLOB NOT NULL,
    status TEXT NOT NULL DEFAULT 'created',
    pid INTEGER NOT NULL DEFAULT 0,
    pid_start INTEGER NOT NULL DEFAULT 0,
    boot_id TEXT NOT NULL DEFAULT '',
    exit_code INTEGER NOT NULL DEFAULT 0,
    oom INTEGER NOT NULL DEFAULT 0,
    started INTEGER NOT NULL DEFAULT 0,
    finished INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX containers_by_image ON containers (image_id);
CREATE TABLE container_volumes (
    container_id TEXT NOT NULL REFERENCES containers ON DELETE CASCADE,
    name TEXT NOT NULL,
    PRIMARY KEY (container_id, name)
) WITHOUT ROWID;
CREATE INDEX container_volumes_by_name ON container_volumes (name);
CREATE TABLE volumes (
    name TEXT PRIMARY KEY,
    created INTEGER NOT NULL,
    anonymous INTEGER NOT NULL,
    labels BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE build_cache (
    key TEXT PRIMARY KEY,
    result BLOB NOT NULL,
    diff_ids BLOB NOT NULL,
    created INTEGER NOT NULL,
    used INTEGER NOT NULL
);
CREATE TABLE leases (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    owner TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    expires INTEGER NOT NULL,
    purpose TEXT NOT NULL
);
CREATE TABLE lease_items (
    lease_id INTEGER NOT NULL REFERENCES leases ON DELETE CASCADE,
    digest TEXT NOT NULL,
    PRIMARY KEY (lease_id, digest)
) WITHOUT ROWID;
"""

_VERSION_2 = """
CREATE TABLE manifest_lists (
    name TEXT PRIMARY KEY,
    entries BLOB NOT NULL,
    created INTEGER NOT NULL
) WITHOUT ROWID;
"""

# MIGRATIONS[n] takes a store from version n to n + 1; statements end with ";" and contain none within.
MIGRATIONS = (_VERSION_1, _VERSION_2)  # as many as store/dbfile.py says
