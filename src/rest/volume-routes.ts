/** `/v3/{project}/volumes` of the standalone mode (cinder/api/v3/volumes.py): list, show, create, os-extend, os-reset_status. */
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { UserMetadata } from '../database/backup-metadata.ts';
import { listVolumeMetadata } from '../database/volume-metadata.ts';
import { getVolume, listVolumes } from '../database/volumes.ts';
import type { Volume } from '../model/volume.ts';
import { faults, itemParams, projectParams } from './parameter-schemas.ts';
import { clientGone, contextOf, type RestApp, type RestServices } from './routes.ts';
import { linksOf, nextLink, optionalTimeText, timeText } from './views.ts';
import {
  createVolumeBody,
  volumeActionBody,
  volumeDetail,
  volumeDetails,
  volumeQuery,
  volumeSummaries,
  volumeSummary,
} from './volume-schemas.ts';

export function volumeRoutes(app: RestApp, { database, volumes }: RestServices): void {
  const { sql } = database;
  const tags = ['volumes'];

  const page = async (
    request: FastifyRequest,
    reply: FastifyReply,
    projectId: string,
    query: z.infer<typeof volumeQuery>,
  ): Promise<readonly Volume[]> => {
    await volumes.adopt(contextOf(request, projectId), clientGone(reply));
    if (query.limit === 0) return [];
    return await listVolumes(sql, { projectId, ...query });
  };

  app.get(
    '/v3/:project_id/volumes',
    {
      schema: {
        tags,
        summary: 'List volumes, files without a row among them',
        params: projectParams,
        querystring: volumeQuery,
        response: { 200: volumeSummaries, ...faults },
      },
    },
    async (request, reply) => {
      const found = await page(request, reply, request.params.project_id, request.query);
      const links = nextLink(request, found, request.query.limit);
      return {
        volumes: found.map((volume) => summaryOf(request, volume)),
        ...(links === undefined ? {} : { volumes_links: links }),
      };
    },
  );

  app.get(
    '/v3/:project_id/volumes/detail',
    {
      schema: {
        tags,
        summary: 'List volumes with details',
        params: projectParams,
        querystring: volumeQuery,
        response: { 200: volumeDetails, ...faults },
      },
    },
    async (request, reply) => {
      const found = await page(request, reply, request.params.project_id, request.query);
      const metadata = await listVolumeMetadata(
        sql,
        found.map(({ id }) => id),
      );
      const links = nextLink(request, found, request.query.limit);
      return {
        volumes: found.map((volume) => detailOf(request, volume, metadata.get(volume.id))),
        ...(links === undefined ? {} : { volumes_links: links }),
      };
    },
  );

  app.post(
    '/v3/:project_id/volumes',
    {
      schema: {
        tags,
        summary: 'Make a volume',
        params: projectParams,
        body: createVolumeBody,
        response: { 202: z.object({ volume: volumeDetail }), ...faults },
      },
    },
    async (request, reply) => {
      const { size, name, description, metadata } = request.body.volume;
      const context = contextOf(request, request.params.project_id);
      const volume = await volumes.create(context, { sizeGiB: size, name, description, metadata });
      return reply.code(202).send({ volume: detailOf(request, volume, metadata) });
    },
  );

  app.get(
    '/v3/:project_id/volumes/:id',
    {
      schema: {
        tags,
        summary: 'Show a volume',
        params: itemParams,
        response: { 200: z.object({ volume: volumeDetail }), ...faults },
      },
    },
    async (request, reply) => {
      const { project_id: projectId, id } = request.params;
      await volumes.adoptOne(contextOf(request, projectId), id, clientGone(reply));
      const volume = await getVolume(sql, id, projectId);
      const metadata = await listVolumeMetadata(sql, [id]);
      return { volume: detailOf(request, volume, metadata.get(id)) };
    },
  );

  app.post(
    '/v3/:project_id/volumes/:id/action',
    {
      schema: {
        tags,
        summary: 'Extend a volume, or reset its status',
        params: itemParams,
        body: volumeActionBody,
        response: { 202: z.undefined().describe('accepted'), ...faults },
      },
    },
    async (request, reply) => {
      const { project_id: projectId, id } = request.params;
      const context = contextOf(request, projectId);
      await volumes.adoptOne(context, id, clientGone(reply));
      const action = request.body;
      if ('os-reset_status' in action) {
        await volumes.reset(context, id, action['os-reset_status'].status);
      } else {
        await volumes.extend(context, id, action['os-extend'].new_size);
      }
      return reply.code(202).send();
    },
  );
}

function summaryOf(request: FastifyRequest, volume: Volume): z.infer<typeof volumeSummary> {
  return {
    id: volume.id,
    name: volume.name,
    links: linksOf(request, volume.projectId, 'volumes', volume.id),
  };
}

function detailOf(
  request: FastifyRequest,
  volume: Volume,
  metadata: UserMetadata | undefined,
): z.infer<typeof volumeDetail> {
  return {
    id: volume.id,
    status: volume.status,
    size: volume.sizeGiB,
    availability_zone: volume.availabilityZone,
    created_at: timeText(volume.createdAt),
    updated_at: optionalTimeText(volume.updatedAt),
    name: volume.name,
    description: volume.description,
    volume_type: null,
    snapshot_id: null,
    source_volid: null,
    metadata: { ...metadata },
    links: linksOf(request, volume.projectId, 'volumes', volume.id),
    user_id: volume.userId,
    bootable: volume.bootable ? 'true' : 'false',
    encrypted: volume.encryptionKeyId !== null,
    replication_status: null,
    consistencygroup_id: null,
    multiattach: false,
    attachments: [],
    'os-vol-host-attr:host': volume.host,
    'os-vol-tenant-attr:tenant_id': volume.projectId,
  };
}
