/**
 * The agent of a standalone service, in a thread of its own: it finds, frames and sends on one processor what the service
 * takes in on another, as if it ran on the storage node.
 */
import { once } from 'node:events';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import type { Logger } from '../log.ts';
import { BackupError, messageOf } from '../model/errors.ts';
import type { AgentThreadSettings, FromAgentThread } from './agent-thread-messages.ts';

export type AgentThread = {
  /** Of the agent, without a path. */
  readonly url: string;
  /** Ends streams and threads; throws what went wrong in that. */
  close(): Promise<void>;
};

const entry = new URL(`./agent-thread-worker${extname(fileURLToPath(import.meta.url))}`, import.meta.url);

/**
 * Starts the thread and waits until its agent listens. Throws what kept it from that. A thread that dies later brings the
 * process down with its error, as it would have without a thread.
 */
export async function startAgentThread(
  settings: Omit<AgentThreadSettings, 'logLevel'>,
  log: Logger,
): Promise<AgentThread> {
  const { promise: ready, resolve, reject } = Promise.withResolvers<string>();
  let failure: BackupError | undefined;
  const fail = (error: BackupError): void => {
    failure = error;
    reject(error);
  };
  const worker = new Worker(entry, {
    name: 'agent',
    execArgv: [],
    workerData: { ...settings, logLevel: log.level } satisfies AgentThreadSettings,
  });
  const exited = once(worker, 'exit');
  worker.on('message', (message: FromAgentThread) => {
    if (message.kind === 'ready') resolve(message.url);
    else if (message.kind === 'failed') fail(new BackupError(message.code, message.message));
    else relay(message.line, log);
  });
  worker.on('error', (error) => {
    fail(new BackupError('bug', `the agent's thread has died: ${messageOf(error)}`, { cause: error }));
    throw error;
  });
  worker.on('exit', (code) => {
    reject(new BackupError('bug', `the agent's thread has ended with exit code ${code} before it was ready`));
  });
  const url = await ready;
  return {
    url,
    async close() {
      worker.postMessage('stop', []);
      await exited;
      if (failure !== undefined) throw failure;
    },
  };
}

/** Writes a line of the thread's log into the service's. */
function relay(line: string, log: Logger): void {
  const fields: unknown = JSON.parse(line);
  if (typeof fields !== 'object' || fields === null) return;
  const { level, time, msg, ...rest }: Record<string, unknown> = { ...fields };
  void time;
  const text = typeof msg === 'string' ? msg : '';
  if (level === 'fatal') log.fatal(rest, text);
  else if (level === 'error') log.error(rest, text);
  else if (level === 'warn') log.warn(rest, text);
  else if (level === 'info') log.info(rest, text);
  else log.debug(rest, text);
}
