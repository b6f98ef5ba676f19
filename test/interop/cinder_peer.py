#!/usr/bin/python3
"""Cinder's own backup drivers (posix, Swift, S3), unmodified, driven from outside its service.

Reads one JSON request per line on standard input, and answers each with one JSON line on standard output,
until the input ends. Run it with the system's Python (Debian package python3-cinder).

  {"op": "backup" | "restore" | "delete",
   "driver": "posix" | "swift" | "s3",   posix unless given
   "options": {"backup_posix_path": ..., "backup_file_size": ..., ...},   oslo.config, group DEFAULT: those of the driver
   "rows": [{...}, ...],          rows of the table `backups`: the one that is meant, and all its ancestors
   "backup_id": "...",
   "volume_file": "...",          an existing file of a whole number of GiB, or of any size (see below)
   "volume_is_new": false}        restore only: what cinder-backup passes since RPC 2.4; ignored by drivers before it

  {"row": {...},                  the row as the driver leaves it
   "seconds": ..., "bytes": ..., "stored_bytes": ..., "max_rss_bytes": ...,
   "driver": "cinder 21.3.1"}
  {"error": "...", "type": "InvalidBackup"}

The driver asks the database for the volume's size in GiB and for a backup's parents: both are answered from the
request, with the size rounded up to whole GiB. Nothing else of Cinder's service runs, so the seconds are the driver's alone.
"""

import os

os.environ.setdefault("EVENTLET_NO_GREENDNS", "yes")

import eventlet

eventlet.monkey_patch()

import contextlib
import inspect
import json
import sys
import time
import traceback
from importlib import metadata

from oslo_config import cfg

from cinder import context
from cinder import objects

objects.register_all()

from cinder.backup.drivers import posix
from cinder.backup.drivers import s3
from cinder.backup.drivers import swift
from cinder.volume import volume_utils

CONF = cfg.CONF
GIB = 1 << 30
DRIVERS = {
    "posix": posix.PosixBackupDriver,
    "swift": swift.SwiftBackupDriver,
    "s3": s3.S3BackupDriver,
}
OPTIONS = {
    name: tuple(option.name for option in driver.get_driver_options()) + ("backup_compression_algorithm",)
    for name, driver in DRIVERS.items()
}
OPTIONS["posix"] += ("backup_file_size", "backup_sha_block_size_bytes")


class BackupRow(dict):
    """A row of `backups` with what the drivers use of objects.Backup."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name, value):
        self[name] = value

    def save(self):
        pass

    def refresh(self):
        pass

    def as_read_deleted(self):
        return contextlib.nullcontext()


class VolumeTable:
    """What the drivers ask of the database."""

    def __init__(self, volume_id, size_bytes):
        self._volume = {
            "id": volume_id,
            "size": max(1, -(-size_bytes // GIB)),
            "display_name": None,
            "display_description": None,
            "volume_type_id": None,
        }

    def volume_get(self, ctxt, volume_id):
        return self._volume


def make_driver(name, volume_id, size_bytes):
    ctxt = context.RequestContext("peer", "peer", is_admin=True)
    driver = DRIVERS[name](ctxt)
    driver.db = VolumeTable(volume_id, size_bytes)
    driver.get_metadata = lambda volume_id: None
    driver.put_metadata = lambda volume_id, document: None
    return driver


def set_options(driver, options):
    for name in set(sum(OPTIONS.values(), ())):
        CONF.clear_override(name)
    for name, value in options.items():
        if name not in OPTIONS[driver]:
            raise ValueError("unknown option %r: it must be one of %s" % (name, ", ".join(OPTIONS[driver])))
        CONF.set_override(name, value)


def stored_bytes(name, row):
    """What lies under the backup's prefix; 0 where asking would cost a request for each object."""
    if name != "posix" or not row.get("container") or not row.get("service_metadata"):
        return 0
    folder = os.path.join(CONF.backup_posix_path, row["container"])
    if not os.path.isdir(folder):
        return 0
    names = (n for n in os.listdir(folder) if n.startswith(row["service_metadata"]))
    return sum(os.path.getsize(os.path.join(folder, n)) for n in names)


def max_rss_bytes():
    """VmHWM: getrusage would also count what this process was before its exec."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def perform(request, driver, row):
    operation = request["op"]
    if operation == "backup":
        row.update(status="creating", service="%s.%s" % (type(driver).__module__, type(driver).__name__))
        with open(request["volume_file"], "rb") as volume:
            driver.backup(row, eventlet.tpool.Proxy(volume))
        row["status"] = "available"
    elif operation == "restore":
        row["status"] = "restoring"
        arguments = {}
        if "volume_is_new" in inspect.signature(driver.restore).parameters:
            arguments["volume_is_new"] = bool(request.get("volume_is_new"))
        with open(request["volume_file"], "rb+") as volume:
            driver.restore(row, row["volume_id"], eventlet.tpool.Proxy(volume), **arguments)
        row["status"] = "available"
    elif operation == "delete":
        driver.delete_backup(row)
        row["status"] = "deleted"
    else:
        raise ValueError("unknown operation %r" % operation)


def answer(request):
    name = request.get("driver", "posix")
    set_options(name, request.get("options", {}))
    rows = {row["id"]: BackupRow(row) for row in request["rows"]}
    objects.Backup.get_by_id = staticmethod(lambda ctxt, backup_id, **kwargs: rows[backup_id])
    row = rows[request["backup_id"]]
    volume_file = request.get("volume_file")
    size_bytes = os.path.getsize(volume_file) if volume_file else 0
    driver = make_driver(name, row["volume_id"], size_bytes)
    started = time.monotonic()
    perform(request, driver, row)
    seconds = time.monotonic() - started
    return {
        "row": row,
        "seconds": round(seconds, 3),
        "bytes": size_bytes,
        "stored_bytes": stored_bytes(name, row),
        "max_rss_bytes": max_rss_bytes(),
        "driver": "cinder " + metadata.version("cinder"),
    }


def main():
    volume_utils.notify_about_backup_usage = lambda *args, **kwargs: None
    CONF([], project="cinder", default_config_files=[], default_config_dirs=[])
    # Making a driver closes the pool of the database: one in memory, without a table, will do.
    CONF.set_override("connection", "sqlite://", group="database")
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as error:
            traceback.print_exc()
            reply = {"error": str(error), "type": type(error).__name__}
        answers.write(json.dumps(reply, default=str) + "\n")


if __name__ == "__main__":
    main()
