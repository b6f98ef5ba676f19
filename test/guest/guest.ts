/**
 * One program in a virtual machine of its own that sees this machine's files, may write anywhere, and leaves nothing behind
 * but what it writes to the shared directory. For what needs a kernel that this machine does not have, such as one with
 * the device mapper. The processor is emulated (TCG) even where /dev/kvm is there: in a nested machine it may not work.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildInitramfs, exitCodeFile, guestPlaces, rootTag, shareTag } from './initramfs.ts';
import { guestKernel } from './kernel.ts';

export type GuestRun = {
  /** The program's working directory: the same path here and there. */
  readonly directory: string;
  readonly argv: readonly string[];
  /** All of the program's environment, but for HOME and TMPDIR, which are in the guest's memory. */
  readonly environment: Readonly<Record<string, string>>;
  /** The sizes of empty disks: /dev/vda, /dev/vdb and so on. They are sparse files in the temporary directory. */
  readonly disks: readonly { readonly sizeBytes: number }[];
  /** A directory here that the guest can write to, as `guestPlaces.share`. */
  readonly share: string;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
  onOutput(piece: Buffer): void;
};

const memoryMib = 2048;
/** Later than our own limit: it is for a guest whose host process is gone. */
const graceSeconds = 60;

/** The program's exit code. Throws, with the console's last lines, if the guest ended before the program did. */
export async function runInGuest(options: GuestRun): Promise<number> {
  const kernel = await guestKernel();
  const directory = await mkdtemp(join(tmpdir(), 'cinder-delta-guest-'));
  try {
    const initramfs = await buildInitramfs(kernel.modules, {
      directory: options.directory,
      argv: options.argv,
      environment: { HOME: guestPlaces.home, TMPDIR: guestPlaces.temporary, ...options.environment },
      limitSeconds: Math.ceil(options.timeoutMs / 1000) + graceSeconds,
    });
    const files = {
      kernel: kernel.image,
      initramfs: join(directory, 'initramfs'),
      console: join(directory, 'console'),
      share: options.share,
    };
    await writeFile(files.initramfs, initramfs);
    const disks = await Promise.all(
      options.disks.map(async ({ sizeBytes }, index) => {
        const disk = join(directory, `disk-${index}`);
        await using handle = await open(disk, 'wx');
        await handle.truncate(sizeBytes);
        return disk;
      }),
    );
    const ended = await runMachine(machineArguments(files, disks), options);
    const code = await readFile(join(options.share, exitCodeFile), 'utf8').catch(() => '');
    // A program whose exit code is there has ended, whatever became of the machine afterwards.
    if (/^\d+\n$/.test(code)) return Number(code);
    const console = await readFile(files.console, 'utf8').catch(() => '');
    throw new Error(`${ended}\nthe last lines of its console:\n${lastLines(console, 30)}`);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

type MachineFiles = {
  readonly kernel: string;
  readonly initramfs: string;
  readonly console: string;
  readonly share: string;
};

function machineArguments(files: MachineFiles, disks: readonly string[]): readonly string[] {
  // Without multidevs=remap, two files of different file systems can seem to be one.
  const shared = (path: string, tag: string) =>
    `local,path=${value(path)},mount_tag=${tag},security_model=none,multidevs=remap`;
  const drive = (disk: string) => `file=${value(disk)},format=raw,if=virtio,discard=unmap,cache=unsafe`;
  return [
    ['-accel', 'tcg,thread=multi', '-cpu', 'max', '-smp', '2', '-m', String(memoryMib)],
    ['-nodefaults', '-display', 'none', '-no-reboot'],
    ['-serial', `file:${value(files.console)}`, '-serial', 'stdio'],
    ['-kernel', files.kernel, '-initrd', files.initramfs],
    ['-append', 'console=ttyS0 panic=-1 quiet nokaslr mitigations=off'],
    ['-virtfs', `${shared('/', rootTag)},readonly=on`, '-virtfs', shared(files.share, shareTag)],
    ...disks.map((disk) => ['-drive', drive(disk)]),
  ].flat();
}

/** A comma ends a value in qemu's options. */
function value(text: string): string {
  return text.replaceAll(',', ',,');
}

/** Waits until the machine is gone, and says how it went. */
async function runMachine(args: readonly string[], options: GuestRun): Promise<string> {
  options.signal?.throwIfAborted();
  const machine = spawn('qemu-system-x86_64', args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let errors = '';
  machine.stdout.on('data', (piece: Buffer) => options.onOutput(piece));
  machine.stderr.setEncoding('utf8').on('data', (piece: string) => {
    errors = `${errors}${piece}`.slice(-20_000);
  });
  const kill = (): boolean => machine.kill('SIGKILL');
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    kill();
  }, options.timeoutMs);
  options.signal?.addEventListener('abort', kill);
  try {
    const how = await endOf(machine);
    options.signal?.throwIfAborted();
    if (late) return `the guest was not done after ${options.timeoutMs / 1000} s, and was stopped`;
    return `the guest ended before its program did (qemu: ${how})${errors === '' ? '' : `\n${errors.trimEnd()}`}`;
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener('abort', kill);
    kill();
  }
}

async function endOf(machine: ChildProcess): Promise<string> {
  // Rejects if it could not be started. `close` comes after the last output.
  const [code, signal] = (await once(machine, 'close')) as [number | null, string | null];
  return signal ?? `exit code ${code}`;
}

function lastLines(text: string, count: number): string {
  return text.trimEnd().split(/\r?\n/).slice(-count).join('\n');
}
