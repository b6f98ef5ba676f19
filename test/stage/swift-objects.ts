/** What lies in Swift, seen past Cinder. */
import { z } from 'zod';
import { addressesOf, type StageSettings } from './settings.ts';

const tokenSchema = z.object({ token: z.object({ project: z.object({ id: z.string() }) }) });

/** A token of the administrator, and the id of its project. */
export async function logIn(
  settings: StageSettings,
): Promise<{ readonly token: string; readonly projectId: string }> {
  const domain = { id: 'default' };
  const identity = {
    methods: ['password'],
    password: { user: { name: 'admin', password: 'admin', domain } },
  };
  const scope = { project: { name: 'admin', domain } };
  const login = await fetch(`${addressesOf(settings).keystone}/v3/auth/tokens`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ auth: { identity, scope } }),
  });
  const { token } = tokenSchema.parse(await login.json());
  return { token: login.headers.get('x-subject-token') ?? '', projectId: token.project.id };
}

/** Names of the objects of a container of the administrator's account; none if there is no such container. */
export async function swiftObjects(settings: StageSettings, container: string): Promise<readonly string[]> {
  const { token, projectId } = await logIn(settings);
  const url = `${addressesOf(settings).swift}/v1/AUTH_${projectId}/${container}`;
  const listing = await fetch(url, { headers: { 'x-auth-token': token } });
  if (listing.status === 404) return [];
  if (!listing.ok) throw new Error(`Swift answers ${listing.status} to a listing`);
  return (await listing.text()).split('\n').filter((line) => line !== '');
}
