/**
 * The agent's OpenAPI 3.1 document, made from the schemas of its routes; openapi/agent.yaml is its text, and a test
 * keeps it current.
 */
import { z } from 'zod';
import { createLogger } from '../log.ts';
import { createAgentApp } from './app.ts';
import { createReaderPool } from './reader-pool.ts';
import { frameStream } from './route-schemas.ts';

const documentSchema = z.looseObject({
  paths: z.record(z.string(), z.record(z.string(), z.looseObject({}))),
  components: z.looseObject({ schemas: z.record(z.string(), z.unknown()) }),
});

type Document = z.infer<typeof documentSchema>;

/** The document as a plain object. */
export async function agentOpenApi(): Promise<object> {
  const readers = createReaderPool({ threads: 1 });
  const app = createAgentApp({ backends: [], access: {}, log: createLogger({ level: 'silent' }), readers });
  try {
    await app.ready();
    return withAccess(withStreamBodies(withoutTwins(app.swagger())));
  } finally {
    await app.close();
    await readers.close();
  }
}

/**
 * The generator makes two schemas of each, one for answers and one for requests, with `Input` at the end of its name.
 * Keeps those that the paths lead to, under their plain names.
 */
function withoutTwins(generated: object): Document {
  const document = documentSchema.parse(generated);
  const { schemas } = document.components;
  const reached = new Set<string>();
  const visit = (part: unknown) => {
    for (const [, name] of JSON.stringify(part).matchAll(/"#\/components\/schemas\/(\w+)"/g)) {
      if (name === undefined || reached.has(name)) continue;
      reached.add(name);
      visit(schemas[name]);
    }
  };
  visit(document.paths);
  const plain = (name: string) => {
    const short = name.replace(/Input$/, '');
    return reached.has(short) ? name : short;
  };
  const kept = [...reached].toSorted((a, b) => (a < b ? -1 : 1)).map((name) => [plain(name), schemas[name]]);
  const pruned = { ...document, components: { ...document.components, schemas: Object.fromEntries(kept) } };
  const text = JSON.stringify(pruned).replaceAll(
    /"#\/components\/schemas\/(\w+)"/g,
    (_, name: string) => `"#/components/schemas/${plain(name)}"`,
  );
  return documentSchema.parse(JSON.parse(text));
}

/** Bodies that are streams have no schema that a validator could run. */
function withStreamBodies(document: Document): Document {
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

function withAccess(document: Document): Document {
  const securitySchemes = {
    token: { type: 'http', scheme: 'bearer', description: 'the shared token, where one is configured' },
    clientCertificate: { type: 'mutualTLS', description: 'where an authority is configured' },
  };
  const security = [{ token: [] }, { clientCertificate: [] }, {}];
  return { ...document, components: { ...document.components, securitySchemes }, security };
}
