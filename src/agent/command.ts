/**
 * Runs programs of the system for a backend: by argv, never through a shell, with an environment of its own, and not for ever.
 * Their names are looked for in the system's directories only.
 */
import { spawn } from 'node:child_process';

export type Command = {
  readonly program: string;
  readonly args: readonly string[];
  /** Beside `LC_ALL` and `PATH`. */
  readonly environment?: Readonly<Record<string, string>>;
  /** An open file that receives the output, which is else returned. */
  readonly outputFd?: number;
  readonly timeoutMs: number;
  /** Ends the program. Not for one that changes something: whoever stops it does not know how far it came. */
  readonly signal?: AbortSignal;
};

/** Returns the output. Throws `CommandError`, or an error with the errno `code` if the program cannot be started. */
export type RunCommand = (command: Command) => Promise<string>;

/** A program that ended with another code than 0, or was killed. */
export class CommandError extends Error {
  /** Null if a signal ended it, whose name is then in `signal`. */
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
  /** The last lines that it wrote to its standard error. */
  readonly complaint: string;

  constructor(program: string, end: number | NodeJS.Signals | null, complaint: string) {
    super(`${program} ended with ${end ?? 'nothing'}: ${complaint}`);
    this.name = 'CommandError';
    this.exitCode = typeof end === 'number' ? end : null;
    this.signal = typeof end === 'number' ? null : end;
    this.complaint = complaint;
  }
}

const systemPath = '/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin';
const maxOutputBytes = 64 * 1024 * 1024;
/** From the signal that asks a program to end, until it is left to itself. */
const graceMs = 30_000;
const maxComplaintChars = 2000;

export const runCommand: RunCommand = ({ program, args, environment, outputFd, timeoutMs, signal }) =>
  new Promise((resolve, reject) => {
    const child = spawn(program, [...args], {
      cwd: '/',
      env: { LC_ALL: 'C', PATH: systemPath, ...environment },
      stdio: ['ignore', outputFd ?? 'pipe', 'pipe'],
      timeout: timeoutMs,
      signal,
    });
    // One that the kernel holds up, or that keeps signals off, is left to itself: nobody can wait for it.
    const stuck = setTimeout(() => {
      child.unref();
      reject(new CommandError(program, 'SIGTERM', 'it does not end'));
    }, timeoutMs + graceMs);
    child.once('close', () => clearTimeout(stuck)).once('error', () => clearTimeout(stuck));
    const output: Buffer[] = [];
    let outputBytes = 0;
    let complaint = '';
    let failure: Error | undefined;
    child.stdout?.on('data', (piece: Buffer) => {
      outputBytes += piece.length;
      if (outputBytes <= maxOutputBytes) output.push(piece);
      else if (child.kill()) failure ??= new Error(`${program} writes more than ${maxOutputBytes} bytes`);
    });
    child.stderr?.setEncoding('utf8').on('data', (piece: string) => {
      complaint = (complaint + piece).slice(-maxComplaintChars);
    });
    child.on('error', (error) => {
      failure ??= error;
      // Only one that was never started has no end.
      if (child.pid === undefined) reject(error);
    });
    child.on('close', (code, killedBy) => {
      if (failure !== undefined) reject(failure);
      else if (code === 0) resolve(Buffer.concat(output).toString('utf8'));
      else reject(new CommandError(program, code ?? killedBy, linesOf(complaint)));
    });
  });

/** What was written, in one line. */
function linesOf(complaint: string): string {
  const lines = complaint.split('\n').map((line) => line.trim());
  return lines.filter((line) => line !== '').join('; ');
}
