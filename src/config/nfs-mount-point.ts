import { hash } from 'node:crypto';
import { join } from 'node:path';

/** Where os-brick mounts a share: the MD5 of its name below `base` (os_brick/remotefs/remotefs.py). */
export function nfsMountPoint(base: string, share: string): string {
  return join(base, hash('md5', share));
}
