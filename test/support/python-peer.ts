/** A Python program of the tests, run by Debian's interpreter: one JSON line for each request, one for each answer. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

export type PythonPeer = {
  /** Sends `request`, and returns the answer to it. One request at a time. */
  ask(request: unknown): Promise<unknown>;
  /** Ends the process; what it wrote to its standard error is returned. */
  close(): Promise<string>;
};

export function startPythonPeer(script: string, ...args: readonly string[]): PythonPeer {
  const child = spawn('/usr/bin/python3', ['-u', script, ...args], {
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8', PYTHONDONTWRITEBYTECODE: '1' },
  });
  const ended = once(child, 'close');
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  let errors = '';
  child.stderr.setEncoding('utf8').on('data', (piece: string) => {
    errors = `${errors}${piece}`.slice(-20_000);
  });
  return {
    async ask(request) {
      child.stdin.write(`${JSON.stringify(request)}\n`);
      const answer = await lines.next();
      if (answer.done === true) throw new Error(`${script} ended: ${errors}`);
      return JSON.parse(answer.value);
    },
    async close() {
      child.stdin.end();
      const timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
      await ended;
      clearTimeout(timer);
      return errors;
    },
  };
}
