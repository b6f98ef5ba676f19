/** `/v1`: operations with their progress, their cancellation, and verify. */
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { getBackup } from '../database/backups.ts';
import type { Operation } from '../manager/operations.ts';
import { BackupError } from '../model/errors.ts';
import {
  operationAnswer,
  operationsAnswer,
  type operationSummary,
  type operationView,
} from './operation-schemas.ts';
import { faults, uuid } from './parameter-schemas.ts';
import { contextOf, type OperatorServices, type RestApp } from './routes.ts';
import { optionalTimeText, timeText } from './views.ts';

const idParams = z.object({ id: uuid });
const query = z.object({
  backup_id: uuid.optional(),
  state: z.enum(['queued', 'running', 'succeeded', 'failed', 'cancelled']).optional(),
});

/** Proxies close a connection that is silent for a minute. */
const longestWaitSeconds = 50;
const waitQuery = z.object({
  wait: z.coerce
    .number()
    .min(0)
    .max(longestWaitSeconds)
    .default(0)
    .describe('seconds to wait for the end of the operation before it is shown'),
});

export function operationRoutes(app: RestApp, { database, manager, operations }: OperatorServices): void {
  const tags = ['operations'];
  const closing = Promise.withResolvers<void>();
  app.addHook('preClose', async () => closing.resolve());

  const untilEnded = async (id: string, seconds: number): Promise<void> => {
    const ended = operations.ended(id);
    if (ended === undefined || seconds === 0) return;
    const timer = new AbortController();
    const limit = sleep(seconds * 1000, undefined, { signal: timer.signal }).catch(() => undefined);
    await Promise.race([ended, closing.promise, limit]).finally(() => timer.abort());
  };

  app.get(
    '/v1/operations',
    {
      schema: {
        tags,
        summary: 'List operations: those that run first',
        querystring: query,
        response: { 200: operationsAnswer, ...faults },
      },
    },
    async (request) => {
      const { backup_id: backupId, state } = request.query;
      const wanted = operations
        .list()
        .filter((each) => backupId === undefined || each.backupId === backupId)
        .filter((each) => state === undefined || each.state === state);
      return { operations: wanted.map(summaryOf) };
    },
  );

  app.get(
    '/v1/operations/:id',
    {
      schema: {
        tags,
        summary: 'Show an operation with its progress, at once or when it has ended',
        params: idParams,
        querystring: waitQuery,
        response: { 200: operationAnswer, ...faults },
      },
    },
    async (request) => {
      const { id } = request.params;
      await untilEnded(id, request.query.wait);
      return { operation: viewOf(requireOperation(operations.get(id), id)) };
    },
  );

  app.delete(
    '/v1/operations/:id',
    {
      schema: {
        tags,
        summary: 'Cancel an operation; it ends soon after. A deletion cannot be cancelled',
        params: idParams,
        response: { 202: z.undefined().describe('accepted'), ...faults },
      },
    },
    async (request, reply) => {
      operations.cancel(request.params.id, 'the operation was cancelled by request');
      return reply.code(202).send();
    },
  );

  app.post(
    '/v1/backups/:id/verify',
    {
      schema: {
        tags,
        summary: 'Check everything that a restore would read, or show the check that runs',
        params: idParams,
        response: { 202: operationAnswer, ...faults },
      },
    },
    async (request, reply) => {
      const backup = await getBackup(database.sql, request.params.id);
      const { operation } = await manager.verify(contextOf(request, backup.projectId), backup.id);
      const started = requireOperation(operations.get(operation.id), operation.id);
      return reply.code(202).send({ operation: viewOf(started) });
    },
  );
}

function requireOperation(operation: Operation | undefined, id: string): Operation {
  if (operation !== undefined) return operation;
  throw new BackupError(
    'not-found',
    `Operation ${id} could not be found: it is older than those that are kept, or was of an earlier process.`,
  );
}

function viewOf(operation: Operation): z.infer<typeof operationView> {
  const { result, ...summary } = summaryOf(operation);
  const badRanges = operation.verified?.badRanges ?? [];
  const ranges = badRanges.map(({ offset, length, backupId, object, reason }) => ({
    offset,
    length,
    backup_id: backupId,
    object,
    reason,
  }));
  return { ...summary, result: result === null ? null : { ...result, bad_ranges: ranges } };
}

function summaryOf(operation: Operation): z.infer<typeof operationSummary> {
  const { progress, verified } = operation;
  return {
    id: operation.id,
    verb: operation.verb,
    project_id: operation.projectId,
    backup_id: operation.backupId,
    volume_id: operation.volumeId,
    state: operation.state,
    mode: operation.mode,
    reason: operation.reason,
    progress: {
      planned_bytes: progress.plannedBytes,
      done_bytes: progress.doneBytes,
      read_bytes: progress.readBytes,
      sent_bytes: progress.sentBytes,
      stored_bytes: progress.storedBytes,
    },
    rate_bytes_per_second: operation.rateBytesPerSecond,
    seconds_left: operation.secondsLeft,
    queued_at: timeText(operation.queuedAt),
    started_at: optionalTimeText(operation.startedAt),
    finished_at: optionalTimeText(operation.finishedAt),
    error: operation.error,
    result:
      verified === null
        ? null
        : {
            checked_bytes: verified.checkedBytes,
            bad_count: verified.badCount,
            bad_bytes: verified.badBytes,
          },
  };
}
