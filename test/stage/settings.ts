/** What a stage is: its directory, ports and addresses. It is written down in the directory, for every process that uses it. */
import { randomUUID } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { freePorts } from '../support/free-ports.ts';

const portNames = [
  'rabbit',
  'distribution',
  'epmd',
  'database',
  'keystone',
  'swift',
  'account',
  'container',
  'object',
  'memcached',
  'monitor',
  'cinder',
  'glance',
  'agent',
  'rest',
  'secondRest',
] as const;

const settingsSchema = z.object({
  directory: z.string(),
  ports: z.record(z.enum(portNames), z.number()),
  secretId: z.string(),
});

export type StageSettings = z.infer<typeof settingsSchema>;

/** The one pool, back end and volume type of the stage. */
export const pool = 'volumes';
export const backend = 'ceph';
export const region = 'RegionOne';
/** `host` of cinder.conf: cinder-volume, cinder-backup and the first cinder-delta. */
export const stageHost = 'stage';

const file = (directory: string) => join(directory, 'stage.json');

export async function makeSettings(directory: string): Promise<StageSettings> {
  const ports = await freePorts(portNames.length);
  const settings = settingsSchema.parse({
    directory,
    ports: Object.fromEntries(portNames.map((name, index) => [name, ports[index]])),
    secretId: randomUUID(),
  });
  await mkdir(join(directory, 'etc'), { recursive: true });
  await writeFile(file(directory), `${JSON.stringify(settings, null, 2)}\n`, { flag: 'wx' });
  return settings;
}

/** Undefined if there is no stage in the directory. */
export async function readSettings(directory: string): Promise<StageSettings | undefined> {
  const text = await readFile(file(directory), 'utf8').catch(() => undefined);
  return text === undefined ? undefined : settingsSchema.parse(JSON.parse(text));
}

const http = (port: number) => `http://127.0.0.1:${port}`;

export function addressesOf({ ports }: StageSettings) {
  return {
    keystone: http(ports.keystone),
    swift: http(ports.swift),
    cinder: http(ports.cinder),
    glance: http(ports.glance),
    agent: http(ports.agent),
    rest: http(ports.rest),
    rabbit: `rabbit://guest:guest@127.0.0.1:${ports.rabbit}/`,
    database: `mysql+pymysql://cinder:cinder@127.0.0.1:${ports.database}/cinder?charset=utf8`,
  };
}

/** The environment that the clients of OpenStack read. A user's password is its name, and so is its project. */
export function clientEnvironment(settings: StageSettings, user: 'admin' | 'demo'): Record<string, string> {
  return {
    OS_AUTH_URL: `${addressesOf(settings).keystone}/v3`,
    OS_AUTH_TYPE: 'password',
    OS_IDENTITY_API_VERSION: '3',
    OS_REGION_NAME: region,
    OS_VOLUME_API_VERSION: '3.70',
    OS_USERNAME: user,
    OS_PASSWORD: user,
    OS_PROJECT_NAME: user,
    OS_USER_DOMAIN_ID: 'default',
    OS_PROJECT_DOMAIN_ID: 'default',
  };
}
