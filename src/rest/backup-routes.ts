/** `/v3/{project}/backups` (cinder/api/contrib/backups.py, cinder/api/contrib/admin_actions.py). */
import type { FastifyRequest } from 'fastify';
import { z } from 'zod';
import { listBackupMetadata, type UserMetadata } from '../database/backup-metadata.ts';
import { getBackup, listBackups } from '../database/backups.ts';
import type { Backup } from '../model/backup.ts';
import {
  backupActionBody,
  backupDetail,
  backupDetails,
  backupQuery,
  backupSummaries,
  backupSummary,
  createBackupBody,
  restoreAnswer,
  restoreBody,
} from './backup-schemas.ts';
import { faults, itemParams, projectParams } from './parameter-schemas.ts';
import { clientGone, contextOf, type RestApp, type RestServices } from './routes.ts';
import { linksOf, nextLink, optionalTimeText, timeText } from './views.ts';

const accepted = z.undefined().describe('accepted');

export function backupRoutes(app: RestApp, services: RestServices): void {
  const { database, manager, volumes } = services;
  const { sql } = database;
  const tags = ['backups'];

  const page = async (projectId: string, query: z.infer<typeof backupQuery>): Promise<readonly Backup[]> => {
    const { limit, offset, marker, name, status } = query;
    const { volume_id: volumeId, parent_id: parentId } = query;
    if (limit === 0) return [];
    return await listBackups(sql, { projectId, limit, offset, marker, name, status, volumeId, parentId });
  };

  app.get(
    '/v3/:project_id/backups',
    {
      schema: {
        tags,
        summary: 'List backups',
        params: projectParams,
        querystring: backupQuery,
        response: { 200: backupSummaries, ...faults },
      },
    },
    async (request) => {
      const backups = await page(request.params.project_id, request.query);
      const links = nextLink(request, backups, request.query.limit);
      return {
        backups: backups.map((backup) => summaryOf(request, backup)),
        ...(links === undefined ? {} : { backups_links: links }),
      };
    },
  );

  app.get(
    '/v3/:project_id/backups/detail',
    {
      schema: {
        tags,
        summary: 'List backups with details',
        params: projectParams,
        querystring: backupQuery,
        response: { 200: backupDetails, ...faults },
      },
    },
    async (request) => {
      const backups = await page(request.params.project_id, request.query);
      const metadata = await listBackupMetadata(
        sql,
        backups.map(({ id }) => id),
      );
      const links = nextLink(request, backups, request.query.limit);
      return {
        backups: backups.map((backup) => detailOf(request, backup, metadata.get(backup.id))),
        ...(links === undefined ? {} : { backups_links: links }),
      };
    },
  );

  app.post(
    '/v3/:project_id/backups',
    {
      schema: {
        tags,
        summary: 'Make a backup of a volume or of a snapshot',
        params: projectParams,
        body: createBackupBody,
        response: { 202: z.object({ backup: backupSummary }), ...faults },
      },
    },
    async (request, reply) => {
      const wanted = request.body.backup;
      const context = contextOf(request, request.params.project_id);
      await volumes.adoptOne(context, wanted.volume_id, clientGone(reply));
      const { backup } = await manager.backup(context, {
        volumeId: wanted.volume_id,
        snapshotId: wanted.snapshot_id,
        name: wanted.name,
        description: wanted.description,
        container: wanted.container,
        incremental: wanted.incremental,
        force: wanted.force,
        availabilityZone: wanted.availability_zone,
        metadata: wanted.metadata,
      });
      return reply.code(202).send({ backup: summaryOf(request, backup) });
    },
  );

  app.get(
    '/v3/:project_id/backups/:id',
    {
      schema: {
        tags,
        summary: 'Show a backup',
        params: itemParams,
        response: { 200: z.object({ backup: backupDetail }), ...faults },
      },
    },
    async (request) => {
      const { project_id: projectId, id } = request.params;
      const backup = await getBackup(sql, id, projectId);
      const metadata = await listBackupMetadata(sql, [id]);
      return { backup: detailOf(request, backup, metadata.get(id)) };
    },
  );

  app.delete(
    '/v3/:project_id/backups/:id',
    {
      schema: {
        tags,
        summary: 'Delete a backup',
        params: itemParams,
        response: { 202: accepted, ...faults },
      },
    },
    async (request, reply) => {
      const { project_id: projectId, id } = request.params;
      await manager.remove(contextOf(request, projectId), { backupId: id, force: false });
      return reply.code(202).send();
    },
  );

  app.post(
    '/v3/:project_id/backups/:id/restore',
    {
      schema: {
        tags,
        summary: 'Restore a backup',
        params: itemParams,
        body: restoreBody,
        response: { 202: restoreAnswer, ...faults },
      },
    },
    async (request, reply) => {
      const { project_id: projectId, id } = request.params;
      const { volume_id: volumeId, name } = request.body.restore;
      const context = contextOf(request, projectId);
      if (volumeId !== null) await volumes.adoptOne(context, volumeId, clientGone(reply));
      const { volume } = await manager.restore(context, { backupId: id, volumeId, name });
      const restore = { backup_id: id, volume_id: volume.id, volume_name: volume.name };
      return reply.code(202).send({ restore });
    },
  );

  app.post(
    '/v3/:project_id/backups/:id/action',
    {
      schema: {
        tags,
        summary: 'Force a deletion, or reset a status',
        params: itemParams,
        body: backupActionBody,
        response: { 202: accepted, ...faults },
      },
    },
    async (request, reply) => {
      const { project_id: projectId, id } = request.params;
      const context = contextOf(request, projectId);
      const action = request.body;
      if ('os-reset_status' in action) {
        await manager.reset(context, id, action['os-reset_status'].status, clientGone(reply));
      } else {
        await manager.remove(context, { backupId: id, force: true });
      }
      return reply.code(202).send();
    },
  );
}

function summaryOf(request: FastifyRequest, backup: Backup): z.infer<typeof backupSummary> {
  return {
    id: backup.id,
    name: backup.name,
    links: linksOf(request, backup.projectId, 'backups', backup.id),
  };
}

function detailOf(
  request: FastifyRequest,
  backup: Backup,
  metadata: UserMetadata | undefined,
): z.infer<typeof backupDetail> {
  return {
    id: backup.id,
    status: backup.status,
    size: backup.sizeGiB,
    object_count: backup.objectCount,
    availability_zone: backup.availabilityZone,
    container: backup.container,
    created_at: timeText(backup.createdAt),
    updated_at: optionalTimeText(backup.updatedAt),
    name: backup.name,
    description: backup.description,
    fail_reason: backup.failReason,
    volume_id: backup.volumeId,
    links: linksOf(request, backup.projectId, 'backups', backup.id),
    is_incremental: backup.parentId !== null,
    has_dependent_backups: backup.dependents > 0,
    snapshot_id: backup.snapshotId,
    data_timestamp: optionalTimeText(backup.dataTimestamp),
    metadata: { ...metadata },
    user_id: backup.userId,
  };
}
