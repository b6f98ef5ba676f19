/** The entry of the thread in which a standalone service runs its agent; any message to it is the order to stop. */
import { once } from 'node:events';
import { parentPort, workerData } from 'node:worker_threads';
import { createAgent } from '../agent/agent.ts';
import { createFileBackend } from '../agent/file-backend.ts';
import { createLogger } from '../log.ts';
import { invariant, isBackupError, messageOf } from '../model/errors.ts';
import type { AgentThreadSettings, FromAgentThread } from './agent-thread-messages.ts';

const port = parentPort;
invariant(port !== null, 'agent-thread-worker.ts runs in a worker thread');
const tell = (message: FromAgentThread): void => port.postMessage(message, []);
const settings: AgentThreadSettings = workerData;
const { directory, backendName, token, maxStreams, maxSnapshots, logLevel } = settings;
const log = createLogger({
  level: logLevel,
  destination: { write: (line: string) => tell({ kind: 'log', line }) },
});
const stop = once(port, 'message');
try {
  const backend = await createFileBackend({ name: backendName, directory, log });
  const agent = await createAgent({
    backends: [backend],
    access: { token },
    host: '127.0.0.1',
    port: 0,
    maxStreams,
    maxSnapshots,
    log,
  });
  tell({ kind: 'ready', url: agent.url });
  await stop;
  await agent.close();
} catch (error) {
  tell({ kind: 'failed', code: isBackupError(error) ? error.code : 'bug', message: messageOf(error) });
}
port.close();
