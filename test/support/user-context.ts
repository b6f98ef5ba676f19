/** The context of a user's request, as cinder-api makes it from a token of the tests' Keystone. */
import { z } from 'zod';
import { readContext, type BusContext } from '../../src/bus/bus-context.ts';

const tokenSchema = z.object({
  token: z.object({
    project: z.object({ id: z.string() }),
    user: z.object({ id: z.string() }),
    catalog: z.array(
      z.object({
        type: z.string(),
        name: z.string(),
        endpoints: z.array(z.object({ interface: z.string(), url: z.string(), region: z.string() })),
      }),
    ),
  }),
});

/** Logs `user` in, whose password is his name. */
export async function userContext(keystoneUrl: string, user: string, project: string): Promise<BusContext> {
  const scope = { project: { name: project, domain: { id: 'default' } } };
  const password = { user: { name: user, domain: { id: 'default' }, password: user } };
  const answer = await fetch(`${keystoneUrl}/v3/auth/tokens`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ auth: { identity: { methods: ['password'], password }, scope } }),
  });
  const { token } = tokenSchema.parse(await answer.json());
  const catalog = token.catalog.map(({ type, name, endpoints }) => ({
    type,
    name,
    endpoints: [
      {
        region: 'RegionOne',
        ...Object.fromEntries(endpoints.map((endpoint) => [`${endpoint.interface}URL`, endpoint.url])),
      },
    ],
  }));
  return readContext({
    user_id: token.user.id,
    project_id: token.project.id,
    auth_token: answer.headers.get('x-subject-token') ?? '',
    service_catalog: catalog,
    is_admin: false,
    request_id: 'req-7f1a1b0e-0000-4000-8000-000000000001',
    read_deleted: 'no',
  });
}
