/** `backups.service`: the class path of the driver that made a backup. */

/**
 * Whether a driver of class `configured` takes a backup whose row says `service` (cinder/backup/manager.py, _is_our_backup): the
 * class itself, the module that older releases wrote in its place (`cinder.backup.drivers.swift`), and nothing at all,
 * which a backup has before it is begun. Two drivers of one layout (posix and nfs) are strangers to each other, as they are
 * to Python.
 */
export function isOwnService(configured: string, service: string | null): boolean {
  return service === null || configured.startsWith(service);
}

/** What rows say for the driver of class `configured`: the class, and the module of older releases. */
export function ownServices(configured: string): readonly string[] {
  return [configured, configured.slice(0, Math.max(0, configured.lastIndexOf('.')))];
}
