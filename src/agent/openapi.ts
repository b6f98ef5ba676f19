/**
 * The agent's OpenAPI 3.1 document, made from the schemas of its routes; openapi/agent.yaml is its text, and a test
 * keeps it current.
 */
import { createLogger } from '../log.ts';
import { tidyOpenApi, type OpenApiDocument } from '../protocol/openapi-document.ts';
import { createAgentApp } from './app.ts';
import { createReaderPool } from './reader-pool.ts';
import { frameStream } from './route-schemas.ts';

/** The document as a plain object. */
export async function agentOpenApi(): Promise<object> {
  const readers = createReaderPool({ threads: 1 });
  const app = createAgentApp({ backends: [], access: {}, log: createLogger({ level: 'silent' }), readers });
  try {
    await app.ready();
    return withAccess(withStreamBodies(tidyOpenApi(app.swagger())));
  } finally {
    await app.close();
    await readers.close();
  }
}

/** Bodies that are streams have no schema that a validator could run. */
function withStreamBodies(document: OpenApiDocument): OpenApiDocument {
  const content = Object.fromEntries(
    Object.keys(frameStream.content).map((type) => [
      type,
      { schema: { type: 'string', contentMediaType: type } },
    ]),
  );
  const paths = Object.entries(document.paths).map(([path, { put, ...others }]) => [
    path,
    put === undefined ? others : { ...others, put: { ...put, requestBody: { required: true, content } } },
  ]);
  return { ...document, paths: Object.fromEntries(paths) };
}

function withAccess(document: OpenApiDocument): OpenApiDocument {
  const securitySchemes = {
    token: { type: 'http', scheme: 'bearer', description: 'the shared token, where one is configured' },
    clientCertificate: { type: 'mutualTLS', description: 'where an authority is configured' },
  };
  const security = [{ token: [] }, { clientCertificate: [] }, {}];
  return { ...document, components: { ...document.components, securitySchemes }, security };
}
