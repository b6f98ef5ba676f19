/** Calls that answer JSON: backends, volumes, snapshots. */
import type { FastifyInstance } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import { z } from 'zod';
import {
  backendList,
  backendName,
  createSnapshotRequest,
  createVolumeRequest,
  resizeVolumeRequest,
  snapshotInfo,
  snapshotList,
  snapshotNameSchema,
  volumeDetail,
  volumeInfo,
  volumeList,
  volumeNameSchema,
} from '../protocol/calls.ts';
import type { AgentContext } from './app.ts';
import { errorResponses } from './route-schemas.ts';

export function volumeRoutes(app: FastifyInstance, context: AgentContext): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const { backendOf, requests } = context;
  const ofBackend = z.object({ backend: backendName });
  const ofVolume = ofBackend.extend({ volume: volumeNameSchema });
  const ofSnapshot = ofVolume.extend({ snapshot: snapshotNameSchema });

  routes.get(
    '/v1/backends',
    { schema: { summary: 'What is served here', response: { 200: backendList, ...errorResponses } } },
    () => ({ backends: context.backends.map(({ info }) => info) }),
  );

  routes.get(
    '/v1/backends/:backend/volumes',
    {
      schema: {
        summary: 'List volumes, and those that are gone but have snapshots left',
        params: ofBackend,
        response: { 200: volumeList, ...errorResponses },
      },
    },
    async ({ params }, reply) => {
      const backend = backendOf(params.backend);
      const { controller, done } = requests.begin('lists', reply);
      try {
        const volumes = [...(await backend.listVolumes(controller.signal))];
        return { volumes, gone: [...(await backend.listGone())] };
      } finally {
        done();
      }
    },
  );

  routes.get(
    '/v1/backends/:backend/volumes/:volume',
    {
      schema: {
        summary: 'Show a volume and its snapshots',
        params: ofVolume,
        response: { 200: volumeDetail, ...errorResponses },
      },
    },
    ({ params }) => backendOf(params.backend).getVolume(params.volume),
  );

  routes.post(
    '/v1/backends/:backend/volumes',
    {
      schema: {
        summary: 'Make a volume of zeros',
        params: ofBackend,
        body: createVolumeRequest,
        response: { 201: volumeInfo, ...errorResponses },
      },
    },
    async ({ params, body }, reply) => {
      const volume = await backendOf(params.backend).createVolume(body.name, body.size_bytes);
      return reply.code(201).send(volume);
    },
  );

  routes.post(
    '/v1/backends/:backend/volumes/:volume/resize',
    {
      schema: {
        summary: 'Grow a volume',
        params: ofVolume,
        body: resizeVolumeRequest,
        response: { 200: volumeInfo, ...errorResponses },
      },
    },
    ({ params, body }) => backendOf(params.backend).resizeVolume(params.volume, body.size_bytes),
  );

  routes.get(
    '/v1/backends/:backend/volumes/:volume/snapshots',
    {
      schema: {
        summary: 'List the snapshots of a volume, also of one that is gone',
        params: ofVolume,
        response: { 200: snapshotList, ...errorResponses },
      },
    },
    async ({ params }) => ({
      snapshots: [...(await backendOf(params.backend).listSnapshots(params.volume))],
    }),
  );

  routes.post(
    '/v1/backends/:backend/volumes/:volume/snapshots',
    {
      schema: {
        summary: 'Make a snapshot, or show the one of that name',
        params: ofVolume,
        body: createSnapshotRequest,
        response: { 200: snapshotInfo, ...errorResponses },
      },
    },
    async ({ params, body }, reply) => {
      const backend = backendOf(params.backend);
      const { controller, done } = requests.begin('snapshots', reply);
      try {
        return await backend.createSnapshot(params.volume, body.name, controller.signal);
      } finally {
        done();
      }
    },
  );

  routes.delete(
    '/v1/backends/:backend/volumes/:volume/snapshots/:snapshot',
    {
      schema: {
        summary: 'Remove a snapshot; succeeds also if it is absent, and if its volume is gone',
        params: ofSnapshot,
        response: { 204: z.null().describe('removed'), ...errorResponses },
      },
    },
    async ({ params }, reply) => {
      await backendOf(params.backend).deleteSnapshot(params.volume, params.snapshot);
      return reply.code(204).send(null);
    },
  );
}
