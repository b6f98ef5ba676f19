/** The Debian packages that `npm run test:lvm` needs here. The guest sees this machine's files, so it has them too. */

/** Installed with apt-get, without recommended packages. */
export const guestPackages = [
  'qemu-system-x86',
  'busybox-static',
  'kmod',
  'lvm2',
  'thin-provisioning-tools',
  'dmsetup',
] as const;
