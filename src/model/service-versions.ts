/**
 * What the row in `services` says that this service understands. Peers read the lowest value over all rows of cinder-backup
 * when they start, and send nothing newer (cinder/rpc.py, determine_rpc_version_cap and determine_obj_version_cap).
 *
 * - RPC 2.4: a Zed peer, whose own interface ends at 2.3, takes the cap as "no limit". From 2023.1 on, with 2.3 the API would
 *   leave `volume_is_new` out of restore_backup, also towards a Python host that is switched back to, which insists on it.
 * - Objects 1.39: the newest version of Zed, and still that of 2026.1. It must be a version that every peer knows, else the
 *   peer does not start (CappedVersionUnknown in cinder/objects/base.py), and 1.38 would have volumes and snapshots
 *   rewritten for an older release.
 */
export const serviceRpcVersion = '2.4';
export const serviceObjectVersion = '1.39';
