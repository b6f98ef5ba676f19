/** `/v3/{project}/snapshots` of the standalone mode (cinder/api/v3/snapshots.py): what a backup of a named snapshot needs. */
import { z } from 'zod';
import { getSnapshot, listSnapshots } from '../database/snapshots.ts';
import type { Snapshot } from '../model/volume.ts';
import { faults, itemParams, projectParams } from './parameter-schemas.ts';
import { clientGone, contextOf, type RestApp, type RestServices } from './routes.ts';
import { optionalTimeText, timeText } from './views.ts';
import { createSnapshotBody, snapshotDetail, snapshotDetails, snapshotQuery } from './volume-schemas.ts';

export function snapshotRoutes(app: RestApp, { database, volumes }: RestServices): void {
  const { sql } = database;
  const tags = ['snapshots'];

  for (const path of ['/v3/:project_id/snapshots', '/v3/:project_id/snapshots/detail']) {
    app.get(
      path,
      {
        schema: {
          tags,
          summary: 'List snapshots',
          params: projectParams,
          querystring: snapshotQuery,
          response: { 200: snapshotDetails, ...faults },
        },
      },
      async (request) => {
        const { name, status, volume_id: volumeId } = request.query;
        const projectId = request.params.project_id;
        const found = await listSnapshots(sql, { projectId, name, status, volumeId });
        return { snapshots: found.map(viewOf) };
      },
    );
  }

  app.post(
    '/v3/:project_id/snapshots',
    {
      schema: {
        tags,
        summary: 'Make a snapshot',
        params: projectParams,
        body: createSnapshotBody,
        response: { 202: z.object({ snapshot: snapshotDetail }), ...faults },
      },
    },
    async (request, reply) => {
      const { volume_id: volumeId, name, description, force } = request.body.snapshot;
      const context = contextOf(request, request.params.project_id);
      await volumes.adoptOne(context, volumeId, clientGone(reply));
      const snapshot = await volumes.createSnapshot(context, { volumeId, name, description, force });
      return reply.code(202).send({ snapshot: viewOf(snapshot) });
    },
  );

  app.get(
    '/v3/:project_id/snapshots/:id',
    {
      schema: {
        tags,
        summary: 'Show a snapshot',
        params: itemParams,
        response: { 200: z.object({ snapshot: snapshotDetail }), ...faults },
      },
    },
    async (request) => {
      const { project_id: projectId, id } = request.params;
      return { snapshot: viewOf(await getSnapshot(sql, id, projectId)) };
    },
  );

  app.delete(
    '/v3/:project_id/snapshots/:id',
    {
      schema: {
        tags,
        summary: 'Delete a snapshot',
        params: itemParams,
        response: { 202: z.undefined().describe('accepted'), ...faults },
      },
    },
    async (request, reply) => {
      const { project_id: projectId, id } = request.params;
      await volumes.deleteSnapshot(contextOf(request, projectId), id);
      return reply.code(202).send();
    },
  );
}

function viewOf(snapshot: Snapshot): z.infer<typeof snapshotDetail> {
  return {
    id: snapshot.id,
    created_at: timeText(snapshot.createdAt),
    updated_at: optionalTimeText(snapshot.updatedAt),
    name: snapshot.name,
    description: snapshot.description,
    volume_id: snapshot.volumeId,
    status: snapshot.status,
    size: snapshot.volumeSizeGiB,
    metadata: {},
  };
}
