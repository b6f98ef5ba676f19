/**
 * What the guest's kernel starts from: busybox, modules and an init that makes this machine's files the guest's root. They
 * lie read-only below a tmpfs: what the guest writes is gone with it, but for the shared directory. The archive is
 * cpio's `newc`, compressed, as https://www.kernel.org/doc/html/latest/driver-api/early-userspace/buffer-format.html has it.
 */
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';

/** The tags by which init finds the two directories that qemu shares. */
export const rootTag = 'root';
export const shareTag = 'share';

/** Where a program in the guest finds things; all of it is in memory but for `share`, a directory of the host. */
export const guestPlaces = {
  home: '/run/guest/home',
  temporary: '/run/guest/temporary',
  share: '/run/guest/share',
} as const;

/** The file in the share that holds the program's exit code; where it is absent the program has not ended. */
export const exitCodeFile = 'exit-code';

/** The guest has no udev. */
const lvmConfiguration = `activation {
  udev_sync = 0
  udev_rules = 0
  verify_udev_operations = 0
  monitoring = 0
}
devices {
  obtain_device_list_from_udev = 0
  use_devicesfile = 0
}
global {
  event_activation = 0
  use_lvmpolld = 0
}
`;

export type GuestProgram = {
  readonly directory: string;
  readonly argv: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  /** The guest ends by itself after this time, if nobody ended it before. */
  readonly limitSeconds: number;
};

type Entry = { readonly name: string; readonly mode: number; readonly content?: Buffer | string };

export async function buildInitramfs(modules: readonly string[], program: GuestProgram): Promise<Buffer> {
  const entries: Entry[] = [
    ...['bin', 'modules'].map((name) => ({ name, mode: 0o40755 })),
    { name: 'init', mode: 0o100755, content: initScript(program.limitSeconds) },
    { name: 'program', mode: 0o100755, content: programScript(program) },
    { name: 'lvm.conf', mode: 0o100644, content: lvmConfiguration },
    { name: 'bin/busybox', mode: 0o100755, content: await readFile('/bin/busybox') },
  ];
  for (const file of modules) {
    entries.push({ name: `modules/${basename(file)}`, mode: 0o100644, content: await readFile(file) });
  }
  return await promisify(gzip)(archive(entries), { level: 1 });
}

/** The console is the first serial line, the program's output the second. init's end is the guest's end. */
function initScript(limitSeconds: number): string {
  const ninep = 'trans=virtio,version=9p2000.L,msize=512000';
  return `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
trap 'poweroff -f' EXIT
set -e

mkdir -p /proc /sys /dev /host /memory /guest
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do
  insmod "$module" || echo "init: $module cannot be loaded"
done
(sleep ${limitSeconds}; echo 'init: the time is up'; poweroff -f) &

mount -t 9p -o ${ninep},ro,cache=loose ${rootTag} /host
mount -t tmpfs -o mode=755 tmpfs /memory
mkdir /memory/changes /memory/work
mount -t overlay -o lowerdir=/host,upperdir=/memory/changes,workdir=/memory/work overlay /guest
mount -t proc proc /guest/proc
mount -t sysfs sysfs /guest/sys
mount -t devtmpfs devtmpfs /guest/dev
mkdir -p /guest/dev/pts /guest/dev/shm
mount -t devpts devpts /guest/dev/pts
mount -t tmpfs -o mode=1777 tmpfs /guest/dev/shm
ln -s /proc/self/fd /guest/dev/fd
ln -s /proc/self/fd/0 /guest/dev/stdin
ln -s /proc/self/fd/1 /guest/dev/stdout
ln -s /proc/self/fd/2 /guest/dev/stderr
mount -t tmpfs -o mode=755 tmpfs /guest/run
mkdir -p /guest/run/lock /guest${guestPlaces.home} /guest${guestPlaces.temporary} /guest${guestPlaces.share}
mount -t 9p -o ${ninep} ${shareTag} /guest${guestPlaces.share}

mkdir -p /guest/etc/lvm
cp /lvm.conf /guest/etc/lvm/lvm.conf
cp /program /guest/run/guest/program
hostname guest
ip link set lo up

stty -F /dev/ttyS1 raw
{
  code=0
  chroot /guest /run/guest/program < /dev/null || code=$?
  echo "$code" > /guest${guestPlaces.share}/${exitCodeFile}
} 2>&1 | cat > /dev/ttyS1
`;
}

function programScript({ directory, argv, environment }: GuestProgram): string {
  const settings = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
  const words = ['/usr/bin/env', '-i', ...settings, ...argv].map(quoted).join(' ');
  return `#!/bin/sh\ncd ${quoted(directory)} && exec ${words}\n`;
}

/** As one word for sh. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function archive(entries: readonly Entry[]): Buffer {
  const all = [...entries, { name: 'TRAILER!!!', mode: 0 }];
  return Buffer.concat(all.flatMap((entry, index) => member(entry, index + 1)));
}

function member({ name, mode, content = '' }: Entry, inode: number): readonly Buffer[] {
  const bytes = Buffer.from(content);
  // inode, mode, user, group, links, time, size, four device numbers, the name's length with its zero, checksum
  const numbers = [inode, mode, 0, 0, 1, 0, bytes.length, 0, 0, 0, 0, Buffer.byteLength(name) + 1, 0];
  const header = `070701${numbers.map((number) => number.toString(16).padStart(8, '0')).join('')}`;
  return [padded(Buffer.from(`${header}${name}\0`)), padded(bytes)];
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);
}
