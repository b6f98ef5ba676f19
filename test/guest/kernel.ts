/**
 * The guest's kernel: Debian's ordinary one, since the cloud kernel has no 9p. It is downloaded, not installed; the image
 * and the few modules that the guest loads are kept in node_modules/.cache, under the package's version.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFile, mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** What the guest loads; what these depend on comes with them. */
const wantedModules = [
  'virtio_pci',
  'virtio_blk',
  '9pnet_virtio',
  '9p',
  'overlay',
  'dm-thin-pool',
  'dm-snapshot',
  'loop',
] as const;

const cache = fileURLToPath(new URL('../../node_modules/.cache/guest', import.meta.url));

/** `modules` are files, in the order in which they can be loaded. */
export type GuestKernel = { readonly image: string; readonly modules: readonly string[] };

type KernelPackage = { readonly name: string; readonly version: string };

export async function guestKernel(): Promise<GuestKernel> {
  const found = (await newestKernel()) ?? (await newestKernelAfterUpdate());
  const kept = keptDirectory(found);
  if (await exists(kept)) return await openKernel(kept);
  try {
    await keepKernel(found, kept);
    return await openKernel(kept);
  } catch {
    // The mirror has gone on to another version than the lists here know.
    const newer = await newestKernelAfterUpdate();
    await keepKernel(newer, keptDirectory(newer));
    return await openKernel(keptDirectory(newer));
  }
}

/** Another choice of modules is another directory. */
function keptDirectory({ name, version }: KernelPackage): string {
  const choice = createHash('sha256').update(wantedModules.join(' ')).digest('hex').slice(0, 8);
  return join(cache, `${name}_${version}_${choice}`);
}

/** What linux-image-amd64 stands for, as far as apt's lists here know it: `Depends: linux-image-6.1.0-56-amd64 (= 6.1.192-2)`. */
async function newestKernel(): Promise<KernelPackage | undefined> {
  const shown = await output('apt-cache', ['show', '--no-all-versions', 'linux-image-amd64']);
  const [, name, version] = /^Depends: (linux-image-\S+) \(= (\S+)\)$/m.exec(shown) ?? [];
  return name === undefined || version === undefined ? undefined : { name, version };
}

async function newestKernelAfterUpdate(): Promise<KernelPackage> {
  await run('apt-get', ['-q', 'update']);
  const found = await newestKernel();
  if (found === undefined) throw new Error('apt-cache knows no kernel that linux-image-amd64 depends on');
  return found;
}

/** Empty where the program has nothing to say: apt-cache ends with an error if it does not know the package. */
async function output(program: string, args: readonly string[]): Promise<string> {
  try {
    return (await run(program, args)).stdout;
  } catch (error) {
    if (error instanceof Error && 'stdout' in error) return '';
    throw error;
  }
}

async function exists(directory: string): Promise<boolean> {
  return await readdir(directory).then(
    () => true,
    () => false,
  );
}

/** Whole or not at all: everything is put together in a directory of its own, which then gets the name `kept`. */
async function keepKernel({ name, version }: KernelPackage, kept: string): Promise<void> {
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(join(cache, 'part-'));
  try {
    // As root, apt-get would download as a user that cannot write to this directory.
    const sameUser = ['-o', 'APT::Sandbox::User=root'];
    await run('apt-get', ['-q', ...sameUser, 'download', `${name}=${version}`], { cwd: work });
    const file = (await readdir(work)).find((each) => each.endsWith('.deb'));
    if (file === undefined) throw new Error(`apt-get downloaded nothing for ${name}=${version}`);
    const tree = join(work, 'tree');
    await run('dpkg-deb', ['-x', join(work, file), tree]);
    const release = name.replace(/^linux-image-/, '');
    const result = join(work, 'result');
    await mkdir(result);
    await copyFile(join(tree, 'boot', `vmlinuz-${release}`), join(result, 'vmlinuz'));
    for (const [index, module] of (await modulesInOrder(tree, release)).entries()) {
      await copyFile(module, join(result, `${String(index).padStart(3, '0')}-${basename(module)}`));
    }
    await rename(result, kept).catch(async (error: unknown) => {
      // Another run may have been quicker.
      if (!(await exists(kept))) throw error;
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function modulesInOrder(tree: string, release: string): Promise<readonly string[]> {
  await run('/sbin/depmod', ['-b', tree, release]);
  const modules = new Set<string>();
  for (const wanted of wantedModules) {
    const { stdout } = await run('/sbin/modprobe', ['-d', tree, '-S', release, '--show-depends', wanted]);
    for (const [, file] of stdout.matchAll(/^insmod (\S+)/gm)) modules.add(file ?? '');
  }
  return [...modules];
}

async function openKernel(directory: string): Promise<GuestKernel> {
  const names = (await readdir(directory)).filter((name) => name !== 'vmlinuz').toSorted();
  return { image: join(directory, 'vmlinuz'), modules: names.map((name) => join(directory, name)) };
}
