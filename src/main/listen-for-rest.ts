/** Has the REST API listen. */
import { isIPv6 } from 'node:net';
import { BackupError, messageOf } from '../model/errors.ts';
import type { RestApp } from '../rest/routes.ts';

/** Returns its URL. Port 0 takes a free one. `config-invalid` with the remedy if the address cannot be had. */
export async function listenForRest(
  app: RestApp,
  { host, port, remedy }: { readonly host: string; readonly port: number; readonly remedy: string },
): Promise<string> {
  try {
    await app.listen({ host, port });
  } catch (error) {
    throw new BackupError(
      'config-invalid',
      `the REST API cannot listen on ${host}:${port}: ${messageOf(error)}; ${remedy}`,
      { cause: error },
    );
  }
  const address = app.server.address();
  const actual = typeof address === 'object' && address !== null ? address.port : port;
  return `http://${isIPv6(host) ? `[${host}]` : host}:${actual}`;
}
